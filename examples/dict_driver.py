"""A driver of one's own in one file: jobs in a dictionary, level 1 of the contract.

It declares no capability, so it has no priorities, no unique keys, no cancellation by id and no
flows; asked for one of those, it says that it does not support it. Check it with::

    taskflow driver check dict_driver:open_driver --app-dir examples
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import anyio
from anyio.lowlevel import checkpoint

from taskflow._core.records import (
    Accepted,
    Change,
    Claim,
    Claimed,
    Enqueued,
    Extended,
    JobSpec,
    Leased,
    Renewal,
    Settled,
    Timing,
    Token,
    Verdict,
    Wait,
    Wake,
    later,
)
from taskflow._core.states import FINAL, Event, JobState, after, sources_of
from taskflow.abc import Clock, Driver, Facts
from taskflow.errors import DriverUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

STAGED = sources_of(Event.STAGE)


@dataclass
class Job:
    spec: JobSpec
    seq: int
    accepted: int
    due: int
    state: JobState
    expires: int | None
    attempt: int = 0
    crashes: int = 0
    interruptions: int = 0
    parks: int = 0
    delivery: int = 0
    request: str = ""
    until: int = 0
    fin: tuple[Token, Event, JobState] | None = None

    def is_held_by(self, token: Token) -> bool:
        return self.state is JobState.RUNNING and token == self.token

    @property
    def token(self) -> Token:
        return Token(self.spec.id, self.delivery, self.request)


class DictDriver(Driver):
    """All operations are plain code without an await inside: that makes each of them one step."""

    name: ClassVar[str] = "dict"
    facts: ClassVar[Facts] = Facts(shared=False)

    def __init__(self, clock: Clock, jobs: dict[str, Job] | None = None) -> None:
        self._clock = clock
        self._jobs = {} if jobs is None else jobs
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def aclose(self) -> None:
        self._is_open = False

    def twin(self) -> DictDriver:
        return DictDriver(self._clock, self._jobs)

    async def check(self) -> Sequence[str]:
        return ["dict: jobs are gone when this process ends"]

    async def _begin(self) -> int:
        await checkpoint()
        if not self._is_open:
            raise DriverUnavailableError(driver=self.name, problem="the driver is closed")
        return self._clock.now()

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        now = await self._begin()
        return [self._accept(spec, now) for spec in jobs]

    def _accept(self, spec: JobSpec, now: int) -> Enqueued:
        known = self._jobs.get(spec.id)
        if known is not None:
            same = known.spec == spec
            return Enqueued(Accepted.DUPLICATE if same else Accepted.CONFLICT, spec.id)
        due = later(now, spec.delay) if spec.eta is None else spec.eta
        state = after(None, Event.ENQUEUE, due_later=due > now)
        expires = None if spec.expires_in is None else later(now, spec.expires_in)
        self._jobs[spec.id] = Job(spec, len(self._jobs), now, due, state, expires)
        return Enqueued(Accepted.ACCEPTED, spec.id)

    async def claim(self, request: Claim) -> Claimed:
        now = await self._begin()
        until = Timing(request.lease).expires(self._clock.uptime())
        taken = [
            job for job in self._jobs.values()
            if job.state is JobState.RUNNING and job.request == request.request_id
        ]  # fmt: skip
        if taken:
            for job in taken:
                job.until = max(job.until, until)
        else:
            self._catch_up(now, 1000)
            taken = self._pick(request)
            for job in taken:
                job.state = after(job.state, Event.CLAIM)
                job.attempt += 1
                job.delivery += 1
                job.request, job.until = request.request_id, until
        dues = [job.due for job in self._jobs.values() if job.state in STAGED]
        next_due = (min(dues) - now) / 1e6 if dues else None
        return Claimed(jobs=[_leased(job) for job in taken], next_due_in=next_due, now=now)

    def _pick(self, request: Claim) -> list[Job]:
        free = {lane: room.free for lane, room in request.rooms.items()}
        ahead = {lane: room.ahead for lane, room in request.rooms.items()}
        queues = list(request.queues)
        if request.others:
            queues += sorted({job.spec.queue for job in self._jobs.values()} - set(queues))
        taken: list[Job] = []
        for queue in queues:
            ready = [
                job for job in self._jobs.values()
                if job.state is JobState.AVAILABLE and job.spec.queue == queue
            ]  # fmt: skip
            for job in sorted(ready, key=lambda job: (job.due, job.seq)):
                lane = job.spec.lane
                spare = job.attempt + 1 < job.spec.max_attempts and not job.crashes
                if free.get(lane, 0):
                    free[lane] -= 1
                elif ahead.get(lane, 0) and spare:
                    ahead[lane] -= 1
                else:
                    continue
                taken.append(job)
        return taken

    def _catch_up(self, now: int, limit: int) -> list[str]:
        ended: list[str] = []
        for job in self._jobs.values():
            dead = job.state is JobState.RUNNING and job.until <= self._clock.uptime()
            if dead and len(ended) < limit:
                job.state = after(job.state, Event.EXPIRE)
                job.crashes += 1
                ended.append(job.spec.id)
            if job.state in STAGED and job.due <= now:
                job.state = after(job.state, Event.STAGE)
            if (
                job.expires is not None
                and job.expires <= now
                and job.state in sources_of(Event.LAPSE)
            ):
                job.state = after(job.state, Event.LAPSE)
        return ended

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        await self._begin()
        until = Timing(lease).expires(self._clock.uptime())
        return [self._renew(renewal.token, until) for renewal in renewals]

    def _renew(self, token: Token, until: int) -> Extended:
        job = self._jobs.get(token.id)
        if job is None or not job.is_held_by(token):
            return Extended.LOST
        job.until = max(job.until, until)
        return Extended.RENEWED

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        now = await self._begin()
        return [self._settle(change, now) for change in changes]

    def _settle(self, change: Change, now: int) -> Settled:
        job = self._jobs.get(change.token.id)
        if job is None or not job.is_held_by(change.token):
            if job is not None and job.fin and job.fin[:2] == (change.token, change.event):
                return Settled(Verdict.ALREADY, job.fin[2])
            return Settled(Verdict.LOST)
        job.state = after(job.state, change.event, by_holder=True)
        job.fin = (change.token, change.event, job.state)
        job.attempt -= change.refund
        job.interruptions += change.event is Event.RELEASE and change.started
        job.parks += change.event is Event.PARK
        if job.state in STAGED:
            job.due = later(now, change.delay)
        for spec in change.follow_ups:
            self._accept(spec, now)
        return Settled(Verdict.APPLIED, job.state)

    async def expire(self, limit: int) -> list[str]:
        return self._catch_up(await self._begin(), limit)

    async def wait(self, request: Wait) -> Wake:
        """Without NOTIFY: look a few times a second."""
        await self._begin()
        with anyio.move_on_after(request.timeout):
            while not self._has_work(request):
                await anyio.sleep(0.2)
            return Wake(work=True)
        return Wake()

    def _has_work(self, request: Wait) -> bool:
        return any(
            job.state not in FINAL and job.state is not JobState.RUNNING
            and job.due <= self._clock.now() and job.spec.lane in request.lanes
            and (request.others or job.spec.queue in request.queues)
            for job in self._jobs.values()
        )  # fmt: skip


def _leased(job: Job) -> Leased:
    return Leased(
        token=job.token, spec=job.spec, attempt=job.attempt, crashes=job.crashes,
        interruptions=job.interruptions, parks=job.parks, enqueued_at=job.accepted,
        due_at=job.due, expires_at=job.expires,
    )  # fmt: skip


@asynccontextmanager
async def open_driver(clock: Clock) -> AsyncIterator[Driver]:
    """What ``taskflow driver check`` and the contract's test class call."""
    driver = DictDriver(clock)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.aclose()
