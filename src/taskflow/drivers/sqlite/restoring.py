"""Bringing ended jobs back into the hot table: replays and rejoins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow._core.records import decode_spec
from taskflow._core.states import Event, JobState, after
from taskflow.drivers.sqlite import rows
from taskflow.drivers.sqlite.keys import holders_of

if TYPE_CHECKING:
    from taskflow._core.records import JobSpec
    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("restore",)

_ENDED: Final = (
    "SELECT seq, state, spec, 0 FROM {finished} WHERE id = ?"
    " UNION ALL SELECT seq, state, spec, 1 FROM {dead} WHERE id = ?"
)
_BACK: Final = (
    "INSERT INTO {jobs} ({kept}, unique_key, result_ttl, failed_ttl)"
    " SELECT {kept}, ?, ?, ? FROM {finished} WHERE seq = ?"
)
_BACK_DEAD: Final = _BACK.replace("FROM {finished}", "FROM {dead}")
_REMOVE: Final = "DELETE FROM {finished} WHERE seq = ?"
_REMOVE_DEAD: Final = "DELETE FROM {dead} WHERE seq = ?"
_REPLAY: Final = (
    "UPDATE {jobs} SET state = ?, reason = '', due = ?, attempt = 0, crashes = 0,"
    " interruptions = 0, parks = 0, cancel_requested = 0, expires_at = NULL WHERE seq = ?"
)
_REJOIN: Final = "UPDATE {jobs} SET state = ?, reason = '' WHERE seq = ?"


def restore(tx: Tx, job_id: str, event: Event) -> bool:
    """Bring a job back by a replay or rejoin; False when another one holds its unique key."""
    seq, state, stored, is_dead = tx.run(_ENDED, (job_id, job_id)).fetchone()
    spec = decode_spec(stored)
    if spec.unique is not None and holders_of(tx, spec.unique.key):
        return False
    tx.run(_BACK_DEAD if is_dead else _BACK, (*rows.columns_of(spec), seq))
    tx.run(_REMOVE_DEAD if is_dead else _REMOVE, (seq,))
    target = after(JobState(state), event)
    if event is Event.REPLAY:
        tx.run(_REPLAY, (target, tx.now, seq))
        _tell(tx, spec)
    else:
        tx.run(_REJOIN, (target, seq))
    return True


def _tell(tx: Tx, spec: JobSpec) -> None:
    tx.news.work.add((spec.queue, spec.lane))
