"""Taking ended jobs out of the hot table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow._core.flows import CALL_EDGES, SKIPPED
from taskflow._core.states import Event, JobState, after, sources_of
from taskflow.drivers.sqlite.flows import sync, sync_next
from taskflow.drivers.sqlite.tx import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = (
    "cancel_rows",
    "finish_rows",
    "put_away",
    "release_successors",
    "skip_rows",
    "tell_successors",
)

_CANCEL: Final = (
    "UPDATE {jobs} SET state = ?, reason = ? WHERE seq IN (SELECT value FROM json_each(?))"
)
_TO_FINISHED: Final = (
    "INSERT INTO {finished} ({kept}, finished_at, forget_at)"
    " SELECT {kept}, ?, ? + result_ttl FROM {jobs} WHERE seq IN (SELECT value FROM json_each(?))"
)
_TO_DEAD: Final = (
    "INSERT INTO {dead} ({kept}, finished_at, forget_at)"
    " SELECT {kept}, ?, ? + failed_ttl FROM {jobs} WHERE seq IN (SELECT value FROM json_each(?))"
)
_FINISH: Final = (
    "INSERT INTO {finished} ({kept}, finished_at, forget_at)"
    " SELECT {ended}, :now, :now + result_ttl FROM {jobs}"
    " WHERE seq IN (SELECT value FROM json_each(:these))"
)
_REMOVE: Final = "DELETE FROM {jobs} WHERE seq IN (SELECT value FROM json_each(?))"


def cancel_rows(
    tx: Tx, seqs: Sequence[int], *, reason: str, event: Event = Event.CANCEL, cascades: bool = False
) -> None:
    """End jobs that have not begun; their unique keys are free at once."""
    state = after(min(sources_of(event) - {JobState.RUNNING}), event)
    tx.run(_CANCEL, (state, reason, listed(seqs)))
    put_away(tx, seqs, is_failed=False, cascades=cascades)


def put_away(tx: Tx, seqs: Sequence[int], *, is_failed: bool, cascades: bool = False) -> None:
    """Move rows whose state is final to the table for them, and tell who waits."""
    if not seqs:
        return
    these = listed(seqs)
    tx.run(_TO_DEAD if is_failed else _TO_FINISHED, (tx.now, tx.now, these))
    ids = [row[0] for row in tx.run(f"{_REMOVE} RETURNING id", (these,))]
    _tell(tx, ids, cascades=cascades)


def finish_rows(
    tx: Tx, ended: Mapping[str, int], *, state: JobState, event: Event, reason: str, refund: bool
) -> None:
    """Complete or cancel running jobs of which nothing else is to be noted, all at once.

    ``ended`` has their row numbers by their ids.
    """
    these = listed(ended.values())
    how = {"state": state, "event": event, "reason": reason, "refund": refund}
    tx.run(_FINISH, {**how, "now": tx.now, "these": these})
    tx.run(_REMOVE, (these,))
    _tell(tx, list(ended))


def _tell(tx: Tx, ids: Sequence[str], *, cascades: bool = False) -> None:
    tx.news.finals.update(ids)
    tell_successors(tx, ids, cascades=cascades)


def tell_successors(tx: Tx, ids: Sequence[str], *, cascades: bool = False) -> None:
    """These jobs have ended, are gone or live again: bring their edges in line with that.

    With ``cascades`` that is left to the next claim or expire.
    """
    if tx.has_edges:
        skip_rows(tx, sync(tx, ids, defer=cascades))


def skip_rows(tx: Tx, seqs: Sequence[int]) -> None:
    """Cancel jobs of which a predecessor ended the other way."""
    if seqs:
        cancel_rows(tx, seqs, reason=SKIPPED, event=Event.SKIP, cascades=True)


def release_successors(tx: Tx) -> None:
    """Work off some of what ends have left undone."""
    left = CALL_EDGES
    while tx.has_edges and left > 0 and (step := sync_next(tx, left)) is not None:
        told, skips = step
        left -= told
        skip_rows(tx, skips)
