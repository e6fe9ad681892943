"""The page of settings, the flags and the declarations say the same."""

from __future__ import annotations

from pathlib import Path

from taskflow._cli.main import worker
from taskflow._cli.reference import page
from taskflow.config import settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    command = "python -m taskflow._cli.reference > docs/settings.md"
    assert PAGE.read_text() == page(), f"run `{command}`"


def test_the_page_and_the_command_know_every_setting() -> None:
    flags = {flag for option in worker.params for flag in option.opts}
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(settings())
    for setting in settings():
        assert setting.flag in flags
        (row,) = (row for row in rows if row.startswith(f"| `{setting.name}` |"))
        assert f"`{setting.variable}` `{setting.flag}`" in row
        assert setting.option.help in row
