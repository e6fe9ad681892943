"""``taskflow driver check``: hold a driver to the contract and print a table by capability."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import msgspec
from rich.console import Console
from rich.table import Table

from taskflow._cli.errors import CommandError
from taskflow._cli.loading import find_object

if TYPE_CHECKING:
    from taskflow.testing.checks import OpenDriver
    from taskflow.testing.contract import Report, Row

__all__ = ("check",)

LINES: Final = 4
LONGEST: Final = 300
"""Lines of a problem, and characters of a line, that are shown without ``--verbose``."""
STYLES: Final = {"passed": "green", "failed": "red", "not declared": "dim"}


def check(
    path: str, folder: str, *, level: str, seed: int, backend: str, as_json: bool, verbose: bool
) -> int:
    """Run it; the exit code is 0 when nothing failed."""
    try:
        from taskflow.testing.contract import check_driver
    except ModuleNotFoundError as exc:
        raise CommandError(
            f"the contract needs {exc.name}: pip install 'taskflow-anyio[testing]'"
        ) from exc
    found = find_object(path, folder)
    if not callable(found):
        raise CommandError(f"{path!r} is a {type(found).__name__}, not a function")
    open_driver = cast("OpenDriver", found)
    report = anyio.run(partial(check_driver, open_driver, level=level, seed=seed), backend=backend)
    if as_json:
        print(msgspec.json.encode(report).decode())
    else:
        _print(report, verbose=verbose)
    return 0 if report.passed else 1


def _print(report: Report, *, verbose: bool) -> None:
    console = Console(highlight=False)
    table = Table(
        "capability", "test", "result", title=f"{report.driver}, contract {report.version}"
    )
    for row in sorted(report.rows, key=_place):
        words = ", ".join(row.capabilities) or "storage"
        table.add_row(words, row.name, f"[{STYLES[row.result]}]{row.result}[/]")
    console.print(table)
    for row in report.rows:
        if row.problem:
            lines = row.problem.splitlines()
            shown = lines if verbose else [line[:LONGEST] for line in lines[:LINES]]
            console.print(f"\n{row.name}: " + "\n".join(shown), markup=False)
            if len(shown) < len(lines):
                console.print(f"… {len(lines) - len(shown)} more lines with --verbose")
    failed = sum(row.result == "failed" for row in report.rows)
    console.print(f"{len(report.rows)} tests, {failed} failed, seed {report.seed}", markup=False)


def _place(row: Row) -> tuple[Any, ...]:
    return bool(row.capabilities), row.capabilities
