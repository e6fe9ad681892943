"""Figures, and how they are shown."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table


class Figure(msgspec.Struct, kw_only=True):
    """One measured value against its target.

    Attributes:
        value: In ``unit``.
        target: At least, or with ``is_bound`` at most.
        note: What it was measured against.
    """

    name: str
    backend: str
    value: float
    unit: str
    target: float
    is_bound: bool = False
    note: str = ""

    @property
    def is_met(self) -> bool:
        """The target is reached."""
        return self.value <= self.target if self.is_bound else self.value >= self.target


def show(figures: list[Figure]) -> None:
    """Print a table."""
    table = Table("benchmark", "loop", "value", "target", "", "against")
    for one in figures:
        target = f"{'<=' if one.is_bound else '>='} {one.target:g} {one.unit}"
        met = "[green]met[/]" if one.is_met else "[red]missed[/]"
        table.add_row(one.name, one.backend, f"{one.value:.3g} {one.unit}", target, met, one.note)
    Console(highlight=False, width=130).print(table)
