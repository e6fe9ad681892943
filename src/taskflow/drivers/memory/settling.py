"""What holders of leases say, and cancellations, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskflow._core.records import (
    Cancelled,
    Change,
    Extended,
    Renewal,
    Settled,
    Verdict,
    Wait,
    later,
)
from taskflow._core.states import FINAL, Event, JobState, after
from taskflow.drivers.memory.ending import end
from taskflow.drivers.memory.storing import accept
from taskflow.drivers.memory.tables import STAGED

if TYPE_CHECKING:
    from taskflow.drivers.memory.rows import Row
    from taskflow.drivers.memory.tables import Tables

__all__ = ("cancel", "has_cancels", "renew", "settle")


def renew(tables: Tables, renewal: Renewal, until: int) -> Extended:
    """Renew one lease."""
    row = tables.rows.get(renewal.token.id)
    if row is None or not row.is_held_by(renewal.token):
        return Extended.LOST
    row.lease_until = max(row.lease_until, until)
    if renewal.progress is not None:
        row.progress = renewal.progress
    return Extended.CANCEL if row.cancel_requested else Extended.RENEWED


def settle(tables: Tables, change: Change, now: int) -> Settled:
    """Apply one change."""
    token, event = change.token, change.event
    row = tables.rows.get(token.id)
    if row is None or not row.is_held_by(token):
        if row is not None and row.fin == (token.delivery, token.request_id, event):
            return Settled(Verdict.ALREADY, row.fin_state)
        return Settled(Verdict.LOST)
    state = after(row.state, event, cancel_requested=row.cancel_requested, by_holder=True)
    row.state = row.fin_state = state
    row.fin = (token.delivery, token.request_id, event)
    _count(row, change)
    tables.leases.leave(row)
    if state in FINAL:
        reason = "cancelled" if state is JobState.CANCELLED else change.reason
        end(tables, row, now, reason, change.result)
    else:
        row.reason = change.reason
        if state in STAGED:
            row.due = later(now, change.delay)
        tables.place(row)
    for spec in change.follow_ups:
        accept(tables, spec, now)
    return Settled(Verdict.APPLIED, state)


def _count(row: Row, change: Change) -> None:
    if change.refund:
        row.attempt -= 1
    if change.event is Event.RELEASE and change.started:
        row.interruptions += 1
    elif change.event is Event.PARK:
        row.parks += 1
    if change.error is not None:
        row.error = change.error


def cancel(tables: Tables, job_id: str, now: int) -> Cancelled:
    """Cancel one job, or ask its worker to."""
    row = tables.rows.get(job_id)
    if row is None:
        return Cancelled.UNKNOWN
    if row.state in FINAL:
        return Cancelled.FINAL
    row.state = after(row.state, Event.CANCEL)
    if row.state is JobState.RUNNING:
        row.cancel_requested = True
        if row.worker_id is not None:
            tables.news.workers.add(row.worker_id)
        return Cancelled.REQUESTED
    end(tables, row, now, "cancelled")
    return Cancelled.CANCELLED


def has_cancels(tables: Tables, request: Wait) -> bool:
    """Whether a cancellation was asked of a job of this worker that it does not know of."""
    if request.worker_id is None:
        return False
    return any(
        row.cancel_requested and row.worker_id == request.worker_id
        and row.spec.id not in request.cancelling
        for row in tables.leases
    )  # fmt: skip
