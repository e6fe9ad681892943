"""Edges between jobs: telling a job's successors how it stands, a bounded number at a time.

An edge keeps what has become of it (``fired``: NULL until its predecessor ends, then 1 or 0), so a
successor is weighed by its own edges alone. Whoever has more successors than one step may serve is
entered in the table of the unsynced, which claims and expires work off; so are cascades of skips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow._core.flows import JOB_EDGES, SKIPPED, Edge, On, fires
from taskflow._core.records import JobSpec, decode_spec, later
from taskflow._core.states import Event, JobState, after
from taskflow.drivers.sqlite.restoring import restore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("add_edges", "forget_edges", "forget_origins", "states_of", "sync", "sync_next", "weigh")

GONE: Final = "\0"
"""Stands before the id of a predecessor that was forgotten: another job may take the id."""

_STATES: Final = (
    "SELECT id, state FROM {jobs} WHERE id IN ({ids})"
    " UNION ALL SELECT id, state FROM {finished} WHERE id IN ({ids})"
    " UNION ALL SELECT id, state FROM {dead} WHERE id IN ({ids})"
)
_ADD: Final = 'INSERT OR IGNORE INTO {edges} (to_id, from_id, "on", fired) VALUES (?, ?, ?, ?)'
_COUNT: Final = "SELECT count(*) FROM (SELECT 1 FROM {edges} WHERE from_id = ? LIMIT ?)"
_UNTOLD: Final = (
    'SELECT to_id, "on" FROM {edges} WHERE from_id = :id AND fired IS NOT'
    " (CASE \"on\" WHEN 'success' THEN :success WHEN 'failure' THEN :failure ELSE :end END)"
    " LIMIT :limit"
)
_TELL: Final = "UPDATE {edges} SET fired = ? WHERE to_id = ? AND from_id = ?"
_DEFER: Final = "INSERT OR IGNORE INTO {unsynced} (id) VALUES (?)"
_NEXT: Final = "SELECT id FROM {unsynced} ORDER BY seq LIMIT 1"
_DONE: Final = "DELETE FROM {unsynced} WHERE id = ?"
_WEIGHTS: Final = (
    "SELECT coalesce(sum(fired = 0), 0), coalesce(sum(fired IS NULL), 0) FROM {edges}"
    " WHERE to_id = ?"
)
_WAITING: Final = "SELECT seq, spec FROM {jobs} WHERE id = ? AND state = ?"
_SKIPPED: Final = "SELECT spec FROM {finished} WHERE id = ? AND state = ? AND reason = ?"
_UNBLOCK: Final = "UPDATE {jobs} SET state = ?, due = ? WHERE seq = ?"
_FORGET_TO: Final = "DELETE FROM {edges} WHERE to_id IN ({ids})"
_FORGET_FROM: Final = "UPDATE {edges} SET from_id = ? || from_id WHERE from_id IN ({ids})"


def states_of(tx: Tx, ids: Iterable[str]) -> dict[str, JobState]:
    """Where jobs stand; those that are not there are absent."""
    return {job_id: JobState(state) for job_id, state in tx.by_ids(_STATES, dict.fromkeys(ids))}


def add_edges(tx: Tx, job_id: str, edges: Iterable[tuple[Edge, bool | None]]) -> None:
    """Store the edges that lead to a job, with what has become of them."""
    tx.many(_ADD, [(job_id, edge.id, edge.on, fired) for edge, fired in edges])
    tx.has_edges = True


def sync(tx: Tx, ids: Iterable[str], *, defer: bool) -> list[int]:
    """Tell the edges from these jobs how they stand; returns the rows that are to be skipped.

    Jobs with many successors, and all of them with ``defer``, are left to ``sync_next``.
    """
    skips: list[int] = []
    for job_id in ids:
        count = tx.run(_COUNT, (job_id, JOB_EDGES + 1)).fetchone()[0]
        if not count:
            continue
        if defer or count > min(JOB_EDGES, tx.edge_budget):
            tx.run(_DEFER, (job_id,))
        else:
            tx.edge_budget -= count
            skips += _tell(tx, job_id, count)[1]
    return skips


def sync_next(tx: Tx, limit: int) -> tuple[int, list[int]] | None:
    """Go on with the first job that was left; ``None`` when there is none.

    Returns:
        How many edges were told, and the rows that are to be skipped.
    """
    row = tx.run(_NEXT).fetchone()
    if row is None:
        return None
    told, skips = _tell(tx, row[0], limit)
    if told < limit:
        tx.run(_DONE, (row[0],))
    return told, skips


def _tell(tx: Tx, job_id: str, limit: int) -> tuple[int, list[int]]:
    state = states_of(tx, [job_id]).get(job_id)
    fired = {on: False if state is None else fires(on, state) for on in On}
    how = {"id": job_id, "limit": limit, **{str(on): value for on, value in fired.items()}}
    untold = tx.run(_UNTOLD, how).fetchall()
    skips: list[int] = []
    for to_id, on in untold:
        tx.run(_TELL, (fired[On(on)], to_id, job_id))
        skips += weigh(tx, to_id)
    if state is None and len(untold) < limit:
        tx.by_ids_run(_FORGET_FROM, [job_id], GONE)
    return len(untold), skips


def weigh(tx: Tx, job_id: str) -> list[int]:
    """An edge of this job changed: unblock it or have it wait again; returns its row if it is to
    be skipped.
    """
    hopeless, open_ = tx.run(_WEIGHTS, (job_id,)).fetchone()
    if not hopeless:
        _rejoin(tx, job_id)
    row = tx.run(_WAITING, (job_id, JobState.WAITING)).fetchone()
    if row is None:
        return []
    seq, stored = row
    if hopeless:
        return [seq]
    if not open_:
        _unblock(tx, seq, decode_spec(stored))
    return []


def _unblock(tx: Tx, seq: int, spec: JobSpec) -> None:
    due = later(tx.now, spec.delay) if spec.eta is None else spec.eta
    state = after(JobState.WAITING, Event.UNBLOCK, due_later=due > tx.now)
    tx.run(_UNBLOCK, (state, due, seq))
    tx.news.work.add((spec.queue, spec.lane))


def _rejoin(tx: Tx, job_id: str) -> None:
    row = tx.run(_SKIPPED, (job_id, JobState.CANCELLED, SKIPPED)).fetchone()
    if row is not None and restore(tx, job_id, Event.REJOIN):
        tx.run(_DEFER, (job_id,))


def forget_edges(tx: Tx, ids: list[str]) -> None:
    """Forget the edges that lead to jobs which are gone."""
    if tx.has_edges:
        tx.by_ids_run(_FORGET_TO, ids)


def forget_origins(tx: Tx, ids: list[str]) -> None:
    """Keep what has become of edges from jobs that are gone, but not whose they were."""
    if tx.has_edges:
        tx.by_ids_run(_FORGET_FROM, ids, GONE)
