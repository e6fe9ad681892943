"""The state behind memory drivers: one lock, and every operation one step under it."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from taskflow._core.flows import CALL_EDGES
from taskflow._core.records import (
    MICRO,
    Cancelled,
    Change,
    Claim,
    Claimed,
    Enqueued,
    Extended,
    Fetched,
    JobSpec,
    Renewal,
    Settled,
    Timing,
    Wait,
    Wake,
)
from taskflow._core.states import FINAL
from taskflow.drivers.memory import claiming, managing, settling, storing
from taskflow.drivers.memory.ending import release_successors
from taskflow.drivers.memory.tables import Tables
from taskflow.drivers.memory.waiting import News, Waiters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
    from taskflow.abc import Clock

__all__ = ("MemoryStore",)


class MemoryStore:
    """Jobs of one ``memory://`` store. Shared by a driver and its twins.

    Attributes:
        waiters: Who is told when something happens.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._tables = Tables()
        self.waiters = Waiters()

    @contextmanager
    def _step(self) -> Iterator[tuple[Tables, int]]:
        """The tables and the time for one step; at its end those who wait are told."""
        with self._lock:
            tables = self._tables
            tables.edge_budget = CALL_EDGES
            yield tables, self._clock.now()
            news = tables.news
            if news.work or news.finals or news.workers:
                tables.news = News()
                self.waiters.tell(news)

    def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """Store jobs, in order."""
        with self._step() as (tables, now):
            return [storing.accept(tables, spec, now) for spec in jobs]

    def claim(self, request: Claim) -> Claimed:
        """Stage, expire, then take the most urgent."""
        with self._step() as (tables, now):
            uptime = self._clock.uptime()
            until = Timing(request.lease).expires(uptime)
            rows = tables.leases.under(request.request_id)
            if rows:
                for row in rows:  # the caller counts the lease from now on
                    row.lease_until = max(row.lease_until, until)
            else:
                tables.stage(now)
                claiming.expire(tables, uptime, limit=1000)
                claiming.lapse(tables, now)
                release_successors(tables, now)
                rows = claiming.pick(tables, request)
                claiming.lease(tables, rows, request, until, now)
            due = tables.next_due(request.queues, others=request.others)
            return Claimed(
                jobs=[row.leased() for row in rows], now=now,
                next_due_in=None if due is None else max(due - now, 0) / MICRO,
            )  # fmt: skip

    def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """Renew what is still held."""
        with self._step() as (tables, _):
            until = Timing(lease).expires(self._clock.uptime())
            return [settling.renew(tables, renewal, until) for renewal in renewals]

    def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """End attempts."""
        with self._step() as (tables, now):
            return [settling.settle(tables, change, now) for change in changes]

    def expire(self, limit: int) -> list[str]:
        """End dead leases."""
        with self._step() as (tables, now):
            expired = claiming.expire(tables, self._clock.uptime(), limit)
            tables.stage(now)
            claiming.lapse(tables, now)
            release_successors(tables, now)
            return expired

    def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """Cancel, or ask."""
        with self._step() as (tables, now):
            return [settling.cancel(tables, job_id, now) for job_id in ids]

    def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """Make ended jobs available again."""
        with self._step() as (tables, now):
            return [managing.replay(tables, job_id, now) for job_id in ids]

    def purge(self, queue: str) -> int:
        """Delete what has not begun."""
        with self._step() as (tables, now):
            return managing.purge(tables, queue, now)

    def pause(self, queues: Sequence[str]) -> None:
        """Hand out nothing of these."""
        with self._step() as (tables, _):
            tables.paused.update(queues)

    def resume(self, queues: Sequence[str]) -> None:
        """Hand out again."""
        with self._step() as (tables, _):
            for queue in tables.paused.intersection(queues):
                tables.paused.discard(queue)
                tables.news.work.update((queue, lane) for lane in tables.ready.get(queue, ()))

    def list_jobs(self, query: JobQuery) -> Page:
        """One page."""
        with self._step() as (tables, _):
            return managing.listed(tables, query)

    def stats(self) -> list[QueueStats]:
        """Counts."""
        with self._step() as (tables, now):
            tables.stage(now)
            return managing.stats(tables, now)

    def prune(self, limit: int, keep: float) -> int:
        """Forget."""
        with self._step() as (tables, now):
            return managing.prune(tables, limit, keep, now)

    def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """Read."""
        with self._step() as (tables, _):
            return [
                Fetched(record=row.record(), payload=row.spec.payload, result=row.result)
                if (row := tables.rows.get(job_id)) is not None
                else None
                for job_id in ids
            ]

    def glance(self, request: Wait) -> Wake:
        """What a wait is about, as it is now."""
        with self._step() as (tables, now):
            tables.stage(now)
            finals = frozenset(
                job_id for job_id in request.ids
                if (row := tables.rows.get(job_id)) is None or row.state in FINAL
            )  # fmt: skip
            return Wake(
                work=any(
                    tables.top(queue, lane) is not None
                    for queue in tables.served(request.queues, others=request.others)
                    for lane in request.lanes
                ),
                finals=finals, cancels=settling.has_cancels(tables, request),
            )  # fmt: skip
