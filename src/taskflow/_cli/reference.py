"""The reference page of settings: ``python -m taskflow._cli.reference > docs/settings.md``."""

from __future__ import annotations

from typing import Final

from taskflow._core.retry import Backoff
from taskflow.config import Setting, settings

__all__ = ("page",)

HEAD: Final = """\
# Settings

Every setting can be given in five ways; the first that says something wins:

1. a flag of `taskflow run worker`, as `--max-attempts 5`;
2. a keyword of `App`, `Worker` or `Config`, as `App(max_attempts=5)`, and below it `configure()`;
3. an environment variable, as `TASKFLOW_MAX_ATTEMPTS=5`; an empty one says nothing;
4. `[tool.taskflow]` in the nearest `pyproject.toml`, as `max_attempts = 5`;
5. the default.

The store is said in one place: a `url` given above is never mixed with a `driver` given below.
Durations are seconds; keywords take a `timedelta`, too. Where `none` is a value, it is written
`none` in text. Lists are separated by commas in text. The app itself is named by `TASKFLOW_APP` or
`[tool.taskflow] app`, as in `jobs:app`.

This page is made from the declarations (`python -m taskflow._cli.reference > docs/settings.md`).
"""


def page() -> str:
    """The whole page, in Markdown."""
    jobs = [setting for setting in settings() if not setting.option.worker]
    workers = [setting for setting in settings() if setting.option.worker]
    return "\n".join(
        [HEAD, "## Stores and jobs\n", *_table(jobs), "", "## Workers\n", *_table(workers), ""]
    )


def _table(chosen: list[Setting]) -> list[str]:
    head = ["| setting | variable and flag | takes | default | |", "|---|---|---|---|---|"]
    return head + [_row(setting) for setting in chosen]


def _row(setting: Setting) -> str:
    names = f"`{setting.variable}` `{setting.flag}`"
    cells = (f"`{setting.name}`", names, _takes(setting), _default(setting), setting.option.help)
    return f"| {' | '.join(cells)} |"


def _takes(setting: Setting) -> str:
    words = ", ".join(f"`{word}`" for word in setting.choices) or _kind(setting)
    if setting.option.least is not None:
        words += f", at least {setting.option.least:g}"
    return f"{words}, or `none`" if setting.is_optional else words


def _kind(setting: Setting) -> str:
    if setting.option.unit:
        return {"s": "seconds"}.get(setting.option.unit, setting.option.unit)
    kind = str(setting.type)
    return "names" if "tuple" in kind else "a whole number" if "int" in kind else "text"


def _default(setting: Setting) -> str:
    value = setting.default
    if value is None:
        return "`none`"
    if value == () or isinstance(value, Backoff):
        return ""
    return f"`{value:.0f}`" if isinstance(value, float) and value.is_integer() else f"`{value}`"


if __name__ == "__main__":
    print(page(), end="")
