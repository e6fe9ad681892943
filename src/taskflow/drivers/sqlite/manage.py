"""Cancelling jobs and reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.records import Cancelled, Fetched, Wait, Wake
from taskflow._core.states import Event, JobState, after
from taskflow.drivers.sqlite import rows
from taskflow.drivers.sqlite.ending import cancel_rows
from taskflow.drivers.sqlite.queues import has_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("cancel", "fetch", "glance")

_STATES: Final = "SELECT id, seq, state, worker_id FROM {jobs} WHERE id IN ({ids})"
_ENDED: Final = (
    "SELECT id FROM {finished} WHERE id IN ({ids})"
    " UNION ALL SELECT id FROM {dead} WHERE id IN ({ids})"
)
_ASK: Final = "UPDATE {jobs} SET cancel_requested = 1 WHERE seq = ?"
_LIVE: Final = "SELECT {record}, NULL, NULL FROM {jobs} WHERE id IN ({ids})"
_COMPLETED: Final = (
    "SELECT {record}, finished_at, (SELECT result FROM {results} r WHERE r.seq = f.seq)"
    " FROM {finished} f WHERE id IN ({ids})"
)
_FAILED: Final = "SELECT {record}, finished_at, NULL FROM {dead} WHERE id IN ({ids})"
_FETCH: Final = " UNION ALL ".join((_LIVE, _COMPLETED, _FAILED))

_ASKED: Final = "SELECT id FROM {jobs} WHERE cancel_requested = 1 AND worker_id = ? AND {running}"


def cancel(tx: Tx, ids: Sequence[str]) -> list[Cancelled]:
    """Cancel what has not begun, ask for what runs; see ``Driver.cancel``."""
    live = {row[0]: row[1:] for row in tx.by_ids(_STATES, ids)}
    ended = {row[0] for row in tx.by_ids(_ENDED, ids)}
    replies: list[Cancelled] = []
    waiting: list[int] = []
    for job_id in ids:
        if job_id in ended:
            replies.append(Cancelled.FINAL)
        elif job_id not in live:
            replies.append(Cancelled.UNKNOWN)
        else:
            replies.append(_cancel_live(tx, live[job_id], waiting))
            if replies[-1] is Cancelled.CANCELLED:
                ended.add(job_id)
    if waiting:
        cancel_rows(tx, waiting, reason="cancelled")
    return replies


def _cancel_live(tx: Tx, row: tuple[Any, ...], waiting: list[int]) -> Cancelled:
    seq, state, worker_id = row
    if after(JobState(state), Event.CANCEL) is JobState.RUNNING:
        tx.run(_ASK, (seq,))
        tx.news.workers.add(worker_id)
        return Cancelled.REQUESTED
    waiting.append(seq)
    return Cancelled.CANCELLED


def fetch(tx: Tx, ids: Sequence[str]) -> list[Fetched | None]:
    """Read jobs wherever they stand; see ``Driver.fetch``."""
    found = {row[0]: row for row in tx.by_ids(_FETCH, dict.fromkeys(ids))}
    return [
        None if (row := found.get(job_id)) is None else rows.fetched(row[:-2], row[-2], row[-1])
        for job_id in ids
    ]


def glance(tx: Tx, request: Wait) -> Wake:
    """What there is to do for one who waits, as it is now. A job that is not there is final."""
    ids = request.ids
    if ids:
        ids -= {row[0] for row in tx.by_ids(_STATES, ids)}
    asked: set[str] = set()
    if request.worker_id is not None:
        asked = {row[0] for row in tx.run(_ASKED, (request.worker_id,))} - request.cancelling
    return Wake(work=has_work(tx, request), finals=ids, cancels=bool(asked))
