"""Who holds a unique key: live jobs, in one of the states that they named themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.records import decode_spec

if TYPE_CHECKING:
    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("holders_of",)

_HOLDERS: Final = "SELECT seq, id, state, spec FROM {jobs} WHERE unique_key = ? ORDER BY seq"


def holders_of(tx: Tx, key: str) -> list[tuple[Any, ...]]:
    """Rows of (seq, id, state, spec), the earliest first."""
    return [row for row in tx.run(_HOLDERS, (key,)).fetchall() if _holds(row)]


def _holds(row: tuple[Any, ...]) -> bool:
    unique = decode_spec(row[3]).unique
    return unique is not None and row[2] in unique.states
