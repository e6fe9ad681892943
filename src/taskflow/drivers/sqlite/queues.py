"""What is due where: staging, the next due time, and which queues have work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow._core.states import Event, JobState, after
from taskflow.drivers.sqlite.tx import named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskflow._core.records import Wait
    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("has_work", "next_due", "ready_queues", "stage")

_STAGE: Final = (
    "UPDATE {jobs} SET state = ? WHERE seq IN (SELECT seq FROM {jobs}"
    " WHERE {stageable} AND due <= ? ORDER BY due LIMIT ?)"
)
_NEXT_READY: Final = "SELECT min(queue) FROM {jobs} WHERE {claimable} AND queue > ?"
_NEXT_DUE: Final = "SELECT min(due) FROM {jobs} WHERE {stageable}"
_NEXT_DUE_IN: Final = "SELECT min(due) FROM {jobs} WHERE {stageable} AND queue = ?"
_LATER_QUEUES: Final = "SELECT DISTINCT queue FROM {jobs} WHERE {stageable}"
_IS_READY: Final = (
    "SELECT EXISTS (SELECT 1 FROM {jobs} WHERE {claimable} AND queue = ?"
    " AND lane IN (SELECT value FROM json_each(?)))"
)
_IS_DUE: Final = (
    "SELECT EXISTS (SELECT 1 FROM {jobs} WHERE {stageable} AND due <= :now"
    " AND lane IN (SELECT value FROM json_each(:lanes))"
    " AND (:others OR queue IN (SELECT value FROM json_each(:queues)))"
    " AND queue NOT IN (SELECT value FROM json_each(:paused)))"
)


def stage(tx: Tx, limit: int) -> None:
    """Make jobs that are due available, whatever their queue, the longest due first."""
    tx.run(_STAGE, (after(JobState.SCHEDULED, Event.STAGE), tx.now, limit))


def ready_queues(tx: Tx, queues: Sequence[str], *, others: bool) -> Iterator[str]:
    """The named queues in their order, then, if asked for, the others that have work, by name.

    Those are found by hops through an index that starts with the queue.
    """
    yield from (queue for queue in queues if queue not in tx.paused)
    name = ""
    while others and (found := tx.run(_NEXT_READY, (name,)).fetchone()[0]) is not None:
        name = found
        if name not in queues and name not in tx.paused:
            yield name


def next_due(tx: Tx, queues: Sequence[str], *, others: bool) -> int | None:
    """When the next scheduled or retryable job of these queues is due."""
    if others and not tx.paused:
        found: int | None = tx.run(_NEXT_DUE).fetchone()[0]
        return found
    if others:
        queues = [row[0] for row in tx.run(_LATER_QUEUES)]
    wanted = (queue for queue in queues if queue not in tx.paused)
    dues = (tx.run(_NEXT_DUE_IN, (queue,)).fetchone()[0] for queue in wanted)
    return min((due for due in dues if due is not None), default=None)


def has_work(tx: Tx, request: Wait) -> bool:
    """Whether a claim for these queues and lanes would find a job."""
    lanes = named(request.lanes)
    queues = ready_queues(tx, request.queues, others=request.others)
    if any(tx.run(_IS_READY, (queue, lanes)).fetchone()[0] for queue in queues):
        return True
    due = {
        "now": tx.now, "lanes": lanes, "others": request.others, "queues": named(request.queues),
        "paused": named(tx.paused),
    }  # fmt: skip
    return bool(tx.run(_IS_DUE, due).fetchone()[0])
