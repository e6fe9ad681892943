"""A drawer of broken drivers: the memory driver, each with one fault that real ones have had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from anyio.lowlevel import checkpoint

from taskflow._core.queries import JobQuery, Page, Replayed
from taskflow._core.records import (
    Accepted,
    Cancelled,
    Change,
    Claim,
    Claimed,
    Enqueued,
    Extended,
    JobSpec,
    Renewal,
    Settled,
    Token,
)
from taskflow._core.states import FINAL, Event, JobState
from taskflow.abc import Clock
from taskflow.drivers.memory import MemoryDriver
from taskflow.drivers.memory.rows import Row
from taskflow.drivers.memory.store import MemoryStore
from taskflow.drivers.memory.waiting import Waiters


class Store(MemoryStore):
    @property
    def rows(self) -> dict[str, Row]:
        return self._tables.rows


class WrongOrder(Store):
    def claim(self, request: Claim) -> Claimed:
        claimed = super().claim(request)
        return Claimed(jobs=claimed.jobs[::-1], next_due_in=claimed.next_due_in, now=claimed.now)


class EarlyDelivery(Store):
    def claim(self, request: Claim) -> Claimed:
        self._tables.stage(self._clock.now() + 60_000_000)
        return super().claim(request)


class TokenReused(Store):
    def claim(self, request: Claim) -> Claimed:
        claimed = super().claim(request)
        for job in claimed.jobs:
            row = self.rows[job.token.id]
            row.delivery = 1
            job.token = Token(job.token.id, 1, job.token.request_id)
        return claimed


class LateSettleAccepted(Store):
    def settle(self, changes: Sequence[Change]) -> list[Settled]:
        fresh = []
        for change in changes:
            row, token = self.rows.get(change.token.id), change.token
            if row is not None and row.state is JobState.RUNNING:
                token = Token(token.id, row.delivery, row.request_id)
            fresh.append(msgspec.structs.replace(change, token=token))
        return super().settle(fresh)


class AttemptNotCounted(Store):
    def claim(self, request: Claim) -> Claimed:
        claimed = super().claim(request)
        for job in claimed.jobs:
            self.rows[job.token.id].attempt -= 1
            job.attempt -= 1
        return claimed


class KeyNotFreed(Store):
    def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        return [self._one(spec) for spec in jobs]

    def _one(self, spec: JobSpec) -> Enqueued:
        unique = spec.unique
        for row in self.rows.values():
            ended = row.state is JobState.COMPLETED and row.spec.unique is not None
            same = unique is not None and row.spec.unique is not None
            if ended and same and row.spec.unique.key == unique.key and row.spec.id != spec.id:  # type: ignore[union-attr]
                return Enqueued(Accepted.HELD, row.spec.id)
        return super().enqueue([spec])[0]


class DuplicateAfterResend(Store):
    def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        for spec in jobs:
            row = self.rows.get(spec.id)
            if row is not None and row.state is JobState.COMPLETED:
                del self.rows[spec.id]
        return super().enqueue(jobs)


class FollowUpWithoutSettle(Store):
    def settle(self, changes: Sequence[Change]) -> list[Settled]:
        replies = super().settle(changes)
        for change in changes:
            super().enqueue(change.follow_ups)
        return replies


class PriorityIgnored(Store):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._specs: dict[str, JobSpec] = {}

    def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        for spec in jobs:
            self._specs.setdefault(spec.id, spec)
        return super().enqueue([msgspec.structs.replace(spec, priority=0) for spec in jobs])

    def claim(self, request: Claim) -> Claimed:
        claimed = super().claim(request)
        for job in claimed.jobs:
            job.spec = self._specs.get(job.spec.id, job.spec)
        return claimed


class PausedQueueServed(Store):
    def claim(self, request: Claim) -> Claimed:
        paused, self._tables.paused = self._tables.paused, set()
        try:
            return super().claim(request)
        finally:
            self._tables.paused = paused


class PoisonNeverDies(Store):
    def expire(self, limit: int) -> list[str]:
        expired = super().expire(limit)
        for job_id in expired:
            self.rows[job_id].crashes = 0
        return expired


class PayloadCutAtNul(Store):
    def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        return super().enqueue([
            msgspec.structs.replace(spec, payload=spec.payload.split(b"\0")[0]) for spec in jobs
        ])  # fmt: skip


class PruneTooEarly(Store):
    def prune(self, limit: int, keep: float) -> int:
        del keep
        return super().prune(limit, 0.0)


class PruneForgetsSuccessors(Store):
    def prune(self, limit: int, keep: float) -> int:
        links, self._tables.links = self._tables.links, {}
        try:
            return super().prune(limit, keep)
        finally:
            self._tables.links = links


class SuccessorNeverUnblocked(Store):
    def settle(self, changes: Sequence[Change]) -> list[Settled]:
        self._tables.links.clear()
        return super().settle(changes)


class ExtendShortens(Store):
    def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        replies = super().extend(renewals, lease)
        until = self._clock.uptime() + round(lease * 1_000_000)
        for renewal, reply in zip(renewals, replies, strict=True):
            if reply is not Extended.LOST:
                row = self.rows[renewal.token.id]
                row.lease_until = until
                self._tables.leases.look_at(until, row.request_id)
        return replies


class EndForgotten(Store):
    def settle(self, changes: Sequence[Change]) -> list[Settled]:
        replies = super().settle(changes)
        for change in changes:
            with suppress(KeyError):
                self.rows[change.token.id].fin = None
        return replies


class RequestForgotten(Store):
    def claim(self, request: Claim) -> Claimed:
        for row in self._tables.leases.under(request.request_id):
            self._tables.leases.leave(row)
        return super().claim(request)


class CancelEndsRunning(Store):
    def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        for job_id in ids:
            row = self.rows.get(job_id)
            if row is not None and row.state is JobState.RUNNING:
                row.state = JobState.AVAILABLE
        return super().cancel(ids)


class CancelForgotten(Store):
    def settle(self, changes: Sequence[Change]) -> list[Settled]:
        for change in changes:
            row = self.rows.get(change.token.id)
            if row is not None and change.event is Event.RELEASE:
                row.cancel_requested = False
        return super().settle(changes)


class RefundForgotten(Store):
    def settle(self, changes: Sequence[Change]) -> list[Settled]:
        return super().settle([msgspec.structs.replace(c, refund=False) for c in changes])


class ExpiresLiveLeases(Store):
    def expire(self, limit: int) -> list[str]:
        for row in self.rows.values():
            if row.state is JobState.RUNNING:
                row.lease_until -= 100_000_000
                self._tables.leases.look_at(row.lease_until, row.request_id)
        return super().expire(limit)


class PurgeTakesRunning(Store):
    def purge(self, queue: str) -> int:
        running = [
            row for row in self.rows.values()
            if row.spec.queue == queue and row.state is JobState.RUNNING
        ]  # fmt: skip
        for row in running:
            del self.rows[row.spec.id]
        return super().purge(queue) + len(running)


class ReplayKeepsCounters(Store):
    def replay(self, ids: Sequence[str]) -> list[Replayed]:
        before = {job_id: row.attempt for job_id in ids if (row := self.rows.get(job_id))}
        replies = super().replay(ids)
        for job_id, reply in zip(ids, replies, strict=True):
            if reply is Replayed.REPLAYED:
                self.rows[job_id].attempt = before[job_id]
        return replies


class FinalRevived(Store):
    def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        for job_id in ids:
            row = self.rows.get(job_id)
            if row is not None and row.state in FINAL:
                row.state = JobState.CANCELLED
        return super().cancel(ids)


class _Deaf(Waiters):
    def tell(self, news: object) -> None:
        pass


class NeverWakes(Store):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.waiters = _Deaf()


class PageRepeats(Store):
    def list_jobs(self, query: JobQuery) -> Page:
        page = super().list_jobs(query)
        cursor = None if page.cursor is None else str(int(page.cursor) + 1)
        return Page(jobs=page.jobs, cursor=cursor)


STORES: Final[tuple[type[Store], ...]] = (
    WrongOrder, EarlyDelivery, TokenReused, LateSettleAccepted, AttemptNotCounted, KeyNotFreed,
    DuplicateAfterResend, FollowUpWithoutSettle, PriorityIgnored, PausedQueueServed,
    PoisonNeverDies, PayloadCutAtNul, PruneTooEarly, PruneForgetsSuccessors,
    SuccessorNeverUnblocked, ExtendShortens, EndForgotten, RequestForgotten, CancelEndsRunning,
    CancelForgotten, RefundForgotten, ExpiresLiveLeases, PurgeTakesRunning, ReplayKeepsCounters,
    FinalRevived, NeverWakes, PageRepeats,
)  # fmt: skip


class LostOnCancel(MemoryDriver):  # type: ignore[misc]
    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        rows = self._live._tables.rows
        taken = {c.token.id: rows.pop(c.token.id) for c in changes if c.token.id in rows}
        await checkpoint()  # cancelled here, the jobs are gone
        rows.update(taken)
        return await super().settle(changes)


class GivenTwice(MemoryDriver):  # type: ignore[misc]
    async def claim(self, request: Claim) -> Claimed:
        rows = self._live._tables.rows
        seen = [row for row in rows.values() if row.state is JobState.AVAILABLE]
        await checkpoint()  # what another claim took meanwhile is taken again
        for row in seen:
            if row.state is JobState.RUNNING:
                self._live._tables.leases.leave(row)
                row.state, row.delivery = JobState.AVAILABLE, row.delivery - 1
                self._live._tables.place(row)
        return await super().claim(request)


DRIVERS: Final[dict[str, Callable[[Clock], MemoryDriver]]] = {
    **{store.__name__: lambda clock, store=store: MemoryDriver(store=store(clock))  # type: ignore[misc]
       for store in STORES},
    "LostOnCancel": lambda clock: LostOnCancel(clock=clock),
    "GivenTwice": lambda clock: GivenTwice(clock=clock),
}  # fmt: skip
