"""Handing out work in memory, and taking it back from those who died."""

from __future__ import annotations

from heapq import heappop
from typing import TYPE_CHECKING, Final

from taskflow._core.states import Event, JobState, after, sources_of
from taskflow.drivers.memory.ending import end

if TYPE_CHECKING:
    from taskflow._core.records import Claim, Lane
    from taskflow.drivers.memory.rows import Row
    from taskflow.drivers.memory.tables import Tables

__all__ = ("expire", "lapse", "lease", "pick")

LAPSING: Final = sources_of(Event.LAPSE)
RUNNING: Final = after(JobState.AVAILABLE, Event.CLAIM)


def pick(tables: Tables, request: Claim) -> list[Row]:
    """Take the most urgent jobs for which there is room out of the ready heaps, in order."""
    free = {lane: room.free for lane, room in request.rooms.items()}
    ahead = {lane: room.ahead for lane, room in request.rooms.items()}
    rows: list[Row] = []
    for queue in tables.served(request.queues, others=request.others):
        found: list[Row] = []
        for lane in free:
            if free[lane] or ahead[lane]:
                found += _take(tables, queue, lane, free, ahead)
        if len(free) > 1:
            found.sort(key=lambda row: row.order)
        rows += found
    return rows


def _take(
    tables: Tables, queue: str, lane: Lane, free: dict[Lane, int], ahead: dict[Lane, int]
) -> list[Row]:
    taken: list[Row] = []
    passed: list[Row] = []
    ready = tables.ready.get(queue, {}).get(lane)
    if ready is None:
        return taken
    while (free[lane] or ahead[lane]) and (row := ready.take()) is not None:
        if free[lane]:
            free[lane] -= 1
            taken.append(row)
        elif row.attempt + 1 < row.spec.max_attempts and not row.crashes:
            ahead[lane] -= 1
            taken.append(row)
        else:
            passed.append(row)
    for row in passed:
        ready.push(row)
    return taken


def lease(tables: Tables, rows: list[Row], request: Claim, until: int, now: int) -> None:
    """Lease the rows that were picked."""
    for row in rows:
        row.state = RUNNING
        row.attempt += 1
        row.delivery += 1
        row.request_id = request.request_id
        row.worker_id = request.worker_id
        row.lease_until = until
        row.started_at = now
    tables.leases.hold(request.request_id, rows, until)


def expire(tables: Tables, uptime: int, limit: int) -> list[str]:
    """End up to ``limit`` dead leases; returns the jobs' ids."""
    ended = tables.leases.ended(uptime, limit)
    for row in ended:
        row.state = after(row.state, Event.EXPIRE)
        row.crashes += 1
        tables.place(row)
    return [row.spec.id for row in ended]


def lapse(tables: Tables, now: int) -> None:
    """Cancel what may not start any more; what runs is put here again if it is handed back."""
    while tables.expiries and tables.expiries[0][0] <= now:
        row = heappop(tables.expiries)[2]
        if row.state in LAPSING and row.expires_at is not None and row.expires_at <= now:
            row.state = after(row.state, Event.LAPSE)
            end(tables, row, now, "expired")
