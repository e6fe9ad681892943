"""Taking ended jobs out of the hot table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow._core.states import Event, JobState, after, sources_of
from taskflow.drivers.sqlite.tx import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("cancel_rows", "finish_rows", "put_away")

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
_REMOVE: Final = "DELETE FROM {jobs} WHERE seq IN (SELECT value FROM json_each(?)) RETURNING id"


def cancel_rows(tx: Tx, seqs: Sequence[int], *, reason: str, event: Event = Event.CANCEL) -> None:
    """End jobs that have not begun; their unique keys are free at once."""
    state = after(min(sources_of(event) - {JobState.RUNNING}), event)
    tx.run(_CANCEL, (state, reason, listed(seqs)))
    put_away(tx, seqs, is_failed=False)


def put_away(tx: Tx, seqs: Sequence[int], *, is_failed: bool) -> None:
    """Move rows whose state is final to the table for them, and tell who waits."""
    if not seqs:
        return
    these = listed(seqs)
    tx.run(_TO_DEAD if is_failed else _TO_FINISHED, (tx.now, tx.now, these))
    _remove(tx, these)


def finish_rows(
    tx: Tx, seqs: Sequence[int], *, state: JobState, event: Event, reason: str, refund: bool
) -> None:
    """Complete or cancel running jobs of which nothing else is to be noted, all at once."""
    these = listed(seqs)
    how = {"state": state, "event": event, "reason": reason, "refund": refund}
    tx.run(_FINISH, {**how, "now": tx.now, "these": these})
    _remove(tx, these)


def _remove(tx: Tx, these: str) -> None:
    tx.news.finals.update(row[0] for row in tx.run(_REMOVE, (these,)))
