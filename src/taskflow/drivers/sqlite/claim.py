"""Handing out work: stage what is due, then walk the ready index, queue by queue and lane by lane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.records import MICRO, Claim, Claimed, Lane, Leased, Timing
from taskflow._core.states import Event, JobState, after
from taskflow.drivers.sqlite import rows
from taskflow.drivers.sqlite.ending import release_successors
from taskflow.drivers.sqlite.leases import SWEEP, end_dead_leases, lapse
from taskflow.drivers.sqlite.queues import next_due, ready_queues, stage
from taskflow.drivers.sqlite.tx import listed

if TYPE_CHECKING:
    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("claim",)

LOOK: Final = 200
"""Rows beyond its room that a claim looks at for jobs to take ahead."""

_SAME: Final = (
    "SELECT {leased}, queue FROM {jobs} WHERE {running} AND request_id = ?"
    " ORDER BY priority DESC, due, seq"
)
_RENEW: Final = (
    "UPDATE {jobs} SET lease_until = max(lease_until, ?), boot = ?"
    " WHERE {running} AND request_id = ?"
)
_READY: Final = (
    "SELECT {leased} FROM {jobs} WHERE {claimable} AND queue = ? AND lane = ?"
    " AND (expires_at IS NULL OR expires_at > ?) ORDER BY priority DESC, due, seq LIMIT ?"
)
_TAKE: Final = (
    "UPDATE {jobs} SET state = ?, attempt = attempt + 1, delivery = delivery + 1, request_id = ?,"
    " worker_id = ?, started_at = ?, lease_until = ?, boot = ?"
    " WHERE seq IN (SELECT value FROM json_each(?))"
)


def claim(tx: Tx, request: Claim) -> Claimed:
    """Lease the most urgent jobs; see ``Driver.claim``."""
    again = _held_already(tx, request)
    if again:
        return Claimed(jobs=again, next_due_in=_next_due_in(tx, request), now=tx.now)
    stage(tx, SWEEP)
    end_dead_leases(tx, SWEEP)
    lapse(tx, SWEEP)
    release_successors(tx)
    picked = _pick(tx, request)
    jobs = _take(tx, request, picked)
    return Claimed(jobs=jobs, next_due_in=_next_due_in(tx, request), now=tx.now)


def _held_already(tx: Tx, request: Claim) -> list[Leased]:
    found = tx.run(_SAME, (request.request_id,)).fetchall()
    if not found:
        return []
    # The caller counts the lease from now on.
    until = Timing(request.lease).expires(tx.uptime)
    tx.run(_RENEW, (until, tx.boot, request.request_id))
    place = {queue: index for index, queue in enumerate(request.queues)}
    # Queues that are not named follow by name; Python sorts stably.
    found.sort(key=lambda row: (place.get(row[-1], len(place)), row[-1]))
    return [rows.leased(row) for row in found]


def _pick(tx: Tx, request: Claim) -> list[tuple[Any, ...]]:
    free = {lane: room.free for lane, room in request.rooms.items()}
    ahead = {lane: room.ahead for lane, room in request.rooms.items()}
    picked: list[tuple[Any, ...]] = []
    for queue in ready_queues(tx, request.queues, others=request.others):
        found: list[tuple[Any, ...]] = []
        for lane in request.rooms:
            if free[lane] + ahead[lane] > 0:
                found += _pick_lane(tx, queue, lane, free, ahead)
        found.sort(key=_urgency)
        picked += found
        if not any(free.values()) and not any(ahead.values()):
            break
    return picked


def _pick_lane(
    tx: Tx, queue: str, lane: Lane, free: dict[Lane, int], ahead: dict[Lane, int]
) -> list[tuple[Any, ...]]:
    """Take of one queue and lane what there is room for, and count the room down."""
    most = free[lane] + ahead[lane] + (LOOK if ahead[lane] else 0)
    picked: list[tuple[Any, ...]] = []
    for row in tx.run(_READY, (queue, lane, tx.now, most)):
        if free[lane] > 0:
            free[lane] -= 1
        elif ahead[lane] > 0 and _may_wait(row):
            ahead[lane] -= 1
        else:
            if ahead[lane] <= 0:
                break
            continue
        picked.append(row)
    return picked


def _may_wait(row: tuple[Any, ...]) -> bool:
    attempt, crashes, max_attempts = row[5], row[6], row[13]
    return bool(crashes == 0 and attempt + 1 < max_attempts)


def _urgency(row: tuple[Any, ...]) -> tuple[int, int, int]:
    return -row[12], row[11], row[0]


def _take(tx: Tx, request: Claim, picked: list[tuple[Any, ...]]) -> list[Leased]:
    if not picked:
        return []
    state = after(JobState.AVAILABLE, Event.CLAIM)
    until = Timing(request.lease).expires(tx.uptime)
    given = (state, request.request_id, request.worker_id, tx.now, until, tx.boot)
    tx.run(_TAKE, (*given, listed(row[0] for row in picked)))
    jobs = []
    for row in picked:
        seq, job_id, delivery, _, spec, attempt, *rest = row
        jobs.append(
            rows.leased((seq, job_id, delivery + 1, request.request_id, spec, attempt + 1, *rest))
        )
    return jobs


def _next_due_in(tx: Tx, request: Claim) -> float | None:
    due = next_due(tx, request.queues, others=request.others)
    return None if due is None else max(due - tx.now, 0) / MICRO
