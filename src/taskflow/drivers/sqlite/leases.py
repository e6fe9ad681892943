"""Renewing leases, ending those that ran out, and lapsing jobs that may not start any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.records import Extended, Renewal, Timing
from taskflow._core.states import Event, JobState, after
from taskflow.drivers.sqlite import rows
from taskflow.drivers.sqlite.ending import cancel_rows, release_successors
from taskflow.drivers.sqlite.queues import stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("SWEEP", "end_dead_leases", "expire", "extend", "is_held", "lapse")

SWEEP: Final = 1000
"""Rows that one call stages, lapses or rescues at most, beside what it was asked for."""

_HELD: Final = (
    "SELECT id, seq, state, delivery, request_id, cancel_requested, lease_until"
    " FROM {jobs} WHERE id IN ({ids})"
)
_RENEW: Final = (
    "UPDATE {jobs} SET lease_until = ?, boot = ?, progress = coalesce(?, progress) WHERE seq = ?"
)
_END: Final = (
    "UPDATE {jobs} SET state = ?, crashes = crashes + 1, lease_until = NULL WHERE seq IN"
    " (SELECT seq FROM {jobs} WHERE {running} AND lease_until <= ? ORDER BY lease_until, seq LIMIT ?)"
    " RETURNING id, queue, lane"
)
_LAPSED: Final = (
    "SELECT seq FROM {jobs} WHERE {lapsable} AND expires_at <= ? ORDER BY expires_at LIMIT ?"
)


def is_held(row: Any, delivery: int, request_id: str) -> bool:
    """Whether the fence lets this token pass; ``row`` is (state, delivery, request id)."""
    return tuple(row) == (JobState.RUNNING, delivery, request_id)


def extend(tx: Tx, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
    """Renew leases; see ``Driver.extend``. One that ran out is still good until it is ended."""
    until = Timing(lease).expires(tx.uptime)
    held = {row[0]: row[1:] for row in tx.by_ids(_HELD, [r.token.id for r in renewals])}
    replies: list[Extended] = []
    writes: list[tuple[object, ...]] = []
    for renewal in renewals:
        token = renewal.token
        row = held.get(token.id)
        if row is None or not is_held(row[1:4], token.delivery, token.request_id):
            replies.append(Extended.LOST)
            continue
        seq, *_, asked, old = row
        writes.append((max(old, until), tx.boot, rows.pack(renewal.progress), seq))
        replies.append(Extended.CANCEL if asked else Extended.RENEWED)
    if writes:
        tx.many(_RENEW, writes)
    return replies


def expire(tx: Tx, limit: int) -> list[str]:
    """End dead leases of every queue, stage what is due, lapse what is overdue; see ``Driver.expire``."""
    ended = end_dead_leases(tx, limit)
    stage(tx, SWEEP)
    lapse(tx, SWEEP)
    release_successors(tx)
    return ended


def end_dead_leases(tx: Tx, limit: int) -> list[str]:
    """Make the jobs of dead leases available again, oldest lease first; returns their ids."""
    state = after(JobState.RUNNING, Event.EXPIRE)
    ended = tx.run(_END, (state, tx.uptime, limit)).fetchall()
    tx.news.work.update((queue, lane) for _, queue, lane in ended)
    return [job_id for job_id, *_ in ended]


def lapse(tx: Tx, limit: int) -> None:
    """Cancel jobs whose ``expires_in`` ran out before a start."""
    seqs = [row[0] for row in tx.run(_LAPSED, (tx.now, limit))]
    if seqs:
        cancel_rows(tx, seqs, reason="expired", event=Event.LAPSE)
