"""Claims as many jobs as there are free slots, and what will start within a moment.

Claiming ahead is worth a factor of two, and is what makes other queues hoard: so it is adaptive.
Ahead is only what will start within 50 ms at the rate seen lately, none when jobs are long, and
what waits longer is handed back.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

import anyio
from anyio import CancelScope

from taskflow import events
from taskflow._core.records import MICRO, Claim, Claimed, Lane, Room
from taskflow._core.registry import registry
from taskflow._worker.attempt import Attempt
from taskflow.errors import DriverError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from taskflow._worker.leases import Leases
    from taskflow._worker.runtime import LanePool, Runtime

__all__ = ("Fetcher",)

AHEAD_SECONDS: Final = 0.05
"""Jobs are claimed ahead only as far as they will start within this time."""
HOARD_SECONDS: Final = 1.0
"""A job that was claimed ahead and has not started after this time is handed back."""
RATE_WINDOW: Final = 0.05
"""Seconds over which the rate of a lane is measured."""
REFUSED_PAUSE: Final = 5.0
"""Seconds until the next claim after the store refused one for good."""


class _Rate:
    """How many jobs a second a lane has finished lately."""

    __slots__ = ("_finished", "_since", "value")

    def __init__(self) -> None:
        self._finished = 0
        self._since = time.monotonic()
        self.value = 0.0

    def update(self, finished: int, now: float) -> float:
        elapsed = now - self._since
        if elapsed >= RATE_WINDOW:
            fresh = (finished - self._finished) / elapsed
            self.value = fresh if elapsed > 1.0 else 0.5 * (self.value + fresh)
            self._finished, self._since = finished, now
        return self.value


class Fetcher:
    """The one who claims."""

    def __init__(self, runtime: Runtime, leases: Leases) -> None:
        self._runtime = runtime
        self._leases = leases
        self._rates = {lane: _Rate() for lane in Lane}
        self._dry: dict[Lane, int] = {}
        self._next_due_at = float("inf")
        self._turn = 0

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Claim until draining begins."""
        runtime = self._runtime
        task_status.started()
        while not runtime.is_draining:
            runtime.work = anyio.Event()
            rooms = self._rooms()
            if rooms:
                if "settle" in runtime.refusals:  # what is claimed now would only run in vain
                    await anyio.sleep(REFUSED_PAUSE)
                if not runtime.is_draining:
                    await self._claim(rooms)
            else:
                await self._pause()

    async def _pause(self) -> None:
        """Until something changed, a scheduled job is due, or ready ones wait too long."""
        runtime, now = self._runtime, time.monotonic()
        until = self._next_due_at
        if any(pool.ready for pool in runtime.pools.values()):
            until = min(until, now + HOARD_SECONDS / 2)
        with anyio.move_on_after(None if until == float("inf") else max(until - now, 0.0)):
            await runtime.work.wait()
        now = time.monotonic()
        if now >= self._next_due_at:
            self._next_due_at = float("inf")
            runtime.signal_work()
        for pool in runtime.pools.values():
            pool.release_ready(now - HOARD_SECONDS)

    def _rooms(self) -> dict[Lane, Room]:
        """Each lane's share of the room over all, and what it may claim ahead."""
        runtime, now = self._runtime, time.monotonic()
        waiting = sum(len(pool.ready) for pool in runtime.pools.values())
        room = max(runtime.room - waiting, 0)
        asking: list[tuple[LanePool, int, int]] = []
        for lane, pool in runtime.pools.items():
            ahead = self._ahead(pool, now)
            if self._dry.get(lane) == runtime.wakes:
                continue
            free = max(min(pool.free - len(pool.ready), room), 0)
            if free or ahead:
                asking.append((pool, free, ahead))
        rooms: dict[Lane, Room] = {}
        self._turn += 1
        for index in range(len(asking)):
            pool, free, ahead = asking[(index + self._turn) % len(asking)]
            share = min(free, -(-room // (len(asking) - index)))
            room -= share
            if share or ahead:
                rooms[pool.lane] = Room(share, ahead)
        return rooms

    def _ahead(self, pool: LanePool, now: float) -> int:
        """How many more to claim ahead; 0 unless it is worth a round trip.

        Asked again when half of them have started, so that a claim is under way meanwhile.
        """
        rate = self._rates[pool.lane].update(pool.finished, now)
        batch = self._runtime.port.driver.facts.max_batch
        wanted = min(int(rate * AHEAD_SECONDS), 2 * batch)
        if wanted <= pool.size // 4:
            pool.low = -1
            return 0
        pool.low = wanted // 2
        return min(wanted - len(pool.ready), batch) if len(pool.ready) <= pool.low else 0

    async def _claim(self, rooms: dict[Lane, Room]) -> None:
        runtime, port = self._runtime, self._runtime.port
        request = Claim(
            queues=runtime.queues, others=runtime.others, rooms=rooms,
            lease=runtime.config.lease, request_id=secrets.token_hex(8),
            worker_id=runtime.worker_id,
        )  # fmt: skip
        wakes, sent_at = runtime.wakes, 0.0

        async def once() -> Claimed:
            nonlocal sent_at
            sent_at = time.monotonic()
            return await port.claim(request)

        try:
            claimed = await port.persist("claim", once)
        except DriverError as exc:
            runtime.refusals.note("claim", exc)
            await anyio.sleep(REFUSED_PAUSE)
            return
        runtime.refusals.clear("claim")
        now = time.monotonic()
        due_in = claimed.next_due_in
        self._next_due_at = float("inf") if due_in is None else now + due_in
        self._take(claimed, sent_at + runtime.config.lease - port.timing.margin, now)
        counts = dict.fromkeys(rooms, 0)
        for job in claimed.jobs:
            counts[job.spec.lane] = counts.get(job.spec.lane, 0) + 1
        for lane, room in rooms.items():
            if counts[lane] < room.free + room.ahead:
                self._dry[lane] = wakes
        runtime.set_hungry(
            frozenset(lane for lane, seen in self._dry.items() if seen == runtime.wakes)
        )

    def _take(self, claimed: Claimed, trust_until: float, now: float) -> None:
        runtime = self._runtime
        find, notify = registry.find, self._leases.progressed
        # This event loop's own class: CancelScope() looks it up each time, at twice the price.
        make_scope = type(CancelScope())
        for job in claimed.jobs:
            spec = job.spec
            definition = find(spec.kind)
            attempt = Attempt(
                job, definition, worker_id=runtime.worker_id, state=runtime.state,
                trust_until=trust_until, notify_progress=notify, make_scope=make_scope,
            )  # fmt: skip
            attempt.claimed_at = now
            if job.expires_at is not None:
                attempt.start_by = now + (job.expires_at - claimed.now) / MICRO
            runtime.held[spec.id] = attempt
            # The registry's lane runs the job; the stored one only steers the claim.
            lane = spec.lane if definition is None else definition.lane
            pool = runtime.pools.get(lane) or runtime.pools[Lane.ASYNC]
            pool.put(attempt)
        runtime.spread()
        if claimed.jobs and runtime.port.is_watched:
            ids = tuple(job.spec.id for job in claimed.jobs)
            runtime.port.emit(events.JobsClaimed(worker_id=runtime.worker_id, job_ids=ids))
