"""A driver and the model side by side: every call goes to both, and they must agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.queries import Replayed
from taskflow._core.records import (
    MICRO,
    Accepted,
    Cancelled,
    Enqueued,
    Fetched,
    Leased,
    Settled,
    Verdict,
    micros,
)
from taskflow._core.states import FINAL, JobState
from taskflow.abc import Capability
from taskflow.errors import DriverError, OutcomeUnknownError
from taskflow.testing.model import Model, ModelJob
from taskflow.testing.showing import show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskflow._core.records import Change, Claim, Extended, JobSpec, Renewal
    from taskflow.abc import Driver
    from taskflow.testing.clock import VirtualClock

__all__ = ("Bench", "ContractError")

STEP: Final = 0.005
"""Seconds that pass before each call, so that no two of them happen at one instant."""
SLACK: Final = 20.0
"""Seconds by which an instant may differ: stores that live by a server's clock run on."""


UNCOUNTED: Final = frozenset({"expire", "purge", "prune"})
"""Calls whose reply counts what this very try has done."""
AGAIN: Final[dict[object, object]] = {
    Accepted.DUPLICATE: Accepted.ACCEPTED, Verdict.ALREADY: Verdict.APPLIED,
    Cancelled.FINAL: Cancelled.CANCELLED, Replayed.REFUSED: Replayed.REPLAYED,
}  # fmt: skip
"""What a call answers that had been applied before, and what it answered then."""


class ContractError(AssertionError):
    """The driver did what the contract does not allow; the message tells the whole program."""


class Bench:
    """Runs calls on a driver and on the model and compares what they say.

    Args:
        driver: Open, and without jobs.
        clock: The one that the driver was made with.

    Attributes:
        log: What was called and answered, for messages.
        is_late: Time has moved: what is due, dead or expired is worked off by the next claim or
            expire, and not compared before.
    """

    def __init__(self, driver: Driver, clock: VirtualClock) -> None:
        self.driver = driver
        self.clock = clock
        self.model = Model()
        self.log: list[str] = []
        self.is_late = False
        self.is_repeated = False

    def can(self, capability: Capability) -> bool:
        """The driver declares it."""
        return capability in self.driver.capabilities

    @property
    def now(self) -> int:
        """The model's instant."""
        return self.clock.now()

    def shift(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.shift(seconds)
        self.is_late = True
        self.log.append(f"shift {seconds:g} s")

    def jump(self, seconds: float) -> None:
        """Set the wall clock; leases go on as they were."""
        self.clock.jump(seconds)
        self.model.jumped += round(seconds * MICRO)
        self.is_late = True
        self.log.append(f"the wall clock jumps by {seconds:g} s")

    async def call(self, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """One call of the driver, sent again with the same arguments until it is answered."""
        self.clock.shift(STEP)
        self.log.append(what)
        self.is_repeated = False
        while True:
            try:
                reply = await call()
            except DriverError as exc:
                if not exc.retryable:
                    raise
                self.is_repeated |= isinstance(exc, OutcomeUnknownError)
                self.log.append(f"   {type(exc).__name__}, again")
            else:
                self.log.append(f"   → {show(reply)}")
                return reply

    def answered(self, what: str, reply: Any, expected: Any) -> None:
        """The reply is the expected one, or what a call says that had been applied before."""
        if not self.is_repeated:
            self.agree(f"{what} answered", reply, expected)
        elif what not in UNCOUNTED:
            found, wanted = map(_as_repeated, reply), map(_as_repeated, expected)
            self.agree(f"{what}, repeated, answered", list(found), list(wanted))

    def agree(self, what: str, found: object, expected: object) -> None:
        """Fail unless both are equal."""
        if found != expected:
            raise ContractError(
                f"{what}\n expected {show(expected)}\n    found {show(found)}\nafter:\n"
                + "\n".join(self.log)
            )

    # ---- the operations

    async def enqueue(self, specs: Sequence[JobSpec]) -> list[Enqueued]:
        """Store jobs."""
        reply = await self.call(f"enqueue {show(specs)}", lambda: self.driver.enqueue(specs))
        self.answered("enqueue", reply, self.model.enqueue(specs, self.now))
        return list(reply)

    async def claim(self, request: Claim) -> list[Leased]:
        """Claim jobs: which, in which order, and with what counts."""
        is_again = self.model.is_held(request.request_id)
        reply = await self.call(f"claim {show(request)}", lambda: self.driver.claim(request))
        expected = [_leased_fields(job) for job in self.model.claim(request, self.now)]
        found = [_fields_of(one) for one in reply.jobs]
        if is_again or self.is_repeated:  # the same jobs, in whatever order
            expected, found = sorted(expected, key=_id_of), sorted(found, key=_id_of)
        self.agree("claim handed out", found, expected)
        self.is_late = False
        return list(reply.jobs)

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """Renew leases."""
        reply = await self.call(
            f"extend {show(renewals)} by {lease:g} s", lambda: self.driver.extend(renewals, lease)
        )
        self.answered("extend", reply, self.model.extend(renewals, lease, self.now))
        return list(reply)

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """End attempts."""
        reply = await self.call(f"settle {show(changes)}", lambda: self.driver.settle(changes))
        self.answered("settle", reply, self.model.settle(changes, self.now))
        return list(reply)

    async def expire(self) -> list[str]:
        """End dead leases and catch up with time."""
        reply = await self.call("expire", lambda: self.driver.expire(1000))
        self.answered("expire", sorted(reply), sorted(self.model.catch_up(self.now)))
        self.is_late = False
        return list(reply)

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """Cancel jobs."""
        reply = await self.call(f"cancel {ids}", lambda: self.driver.cancel(ids))
        self.answered("cancel", reply, self.model.cancel(ids, self.now))
        return list(reply)

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """Replay jobs."""
        reply = await self.call(f"replay {ids}", lambda: self.driver.replay(ids))
        self.answered("replay", reply, self.model.replay(ids, self.now))
        return list(reply)

    async def purge(self, queue: str) -> None:
        """Purge a queue."""
        reply = await self.call(f"purge {queue}", lambda: self.driver.purge(queue))
        self.answered("purge", reply, self.model.purge(queue, self.now))

    async def prune(self, keep: float) -> None:
        """Forget what is over."""
        reply = await self.call(f"prune {keep:g}", lambda: self.driver.prune(1000, keep))
        self.answered("prune", reply, self.model.prune(keep, self.now))

    async def pause(self, queue: str) -> None:
        """Pause a queue."""
        await self.call(f"pause {queue}", lambda: self.driver.pause([queue]))
        self.model.paused.add(queue)

    async def resume(self, queue: str) -> None:
        """Resume a queue."""
        await self.call(f"resume {queue}", lambda: self.driver.resume([queue]))
        self.model.paused.discard(queue)

    # ---- looking

    async def check(self) -> None:
        """Every job is what the model says, none is missing and none came back."""
        if self.is_late or self.model.is_behind or not self.can(Capability.FETCH):
            return
        ids = [*self.model.jobs, *sorted(self.model.gone)]
        found = await self._read(ids)
        for job_id, fetched in zip(ids, found, strict=True):
            job = self.model.jobs.get(job_id)
            if job is None or fetched is None:
                self.agree(f"job {job_id}", fetched, None if job is None else job)
            else:
                self._compare(job, fetched)

    async def _read(self, ids: Sequence[str]) -> list[Fetched | None]:
        while True:
            try:
                return await self.driver.fetch(ids)
            except DriverError as exc:
                if not exc.retryable:
                    raise

    def _compare(self, job: ModelJob, fetched: Fetched) -> None:
        expected, found = _expected_record(job), _found_record(fetched)
        for name, value in expected.items():
            self.agree(f"job {job.spec.id}: {name}", found[name], value)
        if job.state not in FINAL and job.state is not JobState.WAITING:
            apart = abs(micros(fetched.record.due_at) - job.due)
            if apart > SLACK * MICRO:
                self.agree(f"job {job.spec.id}: due (µs)", micros(fetched.record.due_at), job.due)
        self.agree(f"job {job.spec.id}: payload", fetched.payload, job.spec.payload)
        if Capability.RESULTS in self.driver.capabilities:
            self.agree(f"job {job.spec.id}: result", fetched.result, job.result)


def _as_repeated(reply: Any) -> object:
    if isinstance(reply, Enqueued):
        return AGAIN.get(reply.verdict, reply.verdict), reply.id
    if isinstance(reply, Settled):
        return AGAIN.get(reply.verdict, reply.verdict), reply.state
    return AGAIN.get(reply, reply)


def _id_of(fields: dict[str, object]) -> str:
    return str(fields["token"])


def _leased_fields(job: ModelJob) -> dict[str, object]:
    return {
        "token": job.token, "spec": job.spec, "attempt": job.attempt, "crashes": job.crashes,
        "interruptions": job.interruptions, "parks": job.parks,
        "cancel_requested": job.cancel_requested, "expires": job.expires_at is not None,
    }  # fmt: skip


def _fields_of(leased: Leased) -> dict[str, object]:
    return {
        "token": leased.token, "spec": leased.spec, "attempt": leased.attempt,
        "crashes": leased.crashes, "interruptions": leased.interruptions, "parks": leased.parks,
        "cancel_requested": leased.cancel_requested, "expires": leased.expires_at is not None,
    }  # fmt: skip


def _expected_record(job: ModelJob) -> dict[str, object]:
    spec = job.spec
    return {
        "state": job.state, "reason": job.reason, "attempt": job.attempt,
        "crashes": job.crashes, "interruptions": job.interruptions, "parks": job.parks,
        "delivery": job.delivery, "cancel_requested": job.cancel_requested,
        "progress": job.progress, "error": job.error, "kind": spec.kind, "queue": spec.queue,
        "lane": spec.lane, "priority": spec.priority, "max_attempts": spec.max_attempts,
        "tags": dict(spec.tags), "unique": spec.unique,
        "worker": job.worker_id if job.state is JobState.RUNNING else None,
        "has started": job.started_at is not None, "has ended": job.finished_at is not None,
        "may expire": job.expires_at is not None,
    }  # fmt: skip


def _found_record(fetched: Fetched) -> dict[str, object]:
    record = fetched.record
    return {
        "state": record.state, "reason": record.reason, "attempt": record.attempt,
        "crashes": record.crashes, "interruptions": record.interruptions, "parks": record.parks,
        "delivery": record.delivery, "cancel_requested": record.cancel_requested,
        "progress": record.progress, "error": record.error, "kind": record.kind,
        "queue": record.queue, "lane": record.lane, "priority": record.priority,
        "max_attempts": record.max_attempts, "tags": dict(record.tags), "unique": record.unique,
        "worker": record.worker_id if record.state is JobState.RUNNING else None,
        "has started": record.started_at is not None, "has ended": record.finished_at is not None,
        "may expire": record.expires_at is not None,
    }  # fmt: skip
