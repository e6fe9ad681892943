"""Concurrent programs: several callers at once, a recorded history, and the invariants it must keep.

No model here, because several orders are right. What is checked is checked from the history alone,
independently of any model: a mistake that both a driver and the model made would still show.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Final, cast

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from taskflow._core.records import (
    Accepted,
    Change,
    Claim,
    Extended,
    JobSpec,
    Lane,
    Leased,
    Renewal,
    Room,
    Timing,
    Token,
    Verdict,
)
from taskflow._core.retry import Backoff
from taskflow._core.states import FINAL, Event
from taskflow.abc import Capability
from taskflow.errors import DriverError
from taskflow.testing.bench import ContractError
from taskflow.testing.draws import SeededDraws

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskflow._core.records import Fetched
    from taskflow.abc import Driver
    from taskflow.testing.clock import VirtualClock
    from taskflow.testing.draws import Draws

__all__ = ("Entry", "History")

LEASE: Final = 120.0
EVENTS: Final = (
    Event.COMPLETE, Event.COMPLETE, Event.FAIL, Event.RETRY, Event.SNOOZE, Event.RELEASE,
)  # fmt: skip


class Entry(msgspec.Struct, frozen=True):
    """One answered call about one job. Stamps count calls and answers over all callers."""

    caller: int
    what: str
    token: Token
    reply: str
    began: int
    ended: int
    at: int


class History:
    """Runs callers against one driver and keeps what they saw.

    Args:
        driver: Open, and without jobs.
        clock: The one that the driver was made with.
        draws: Chooses how many callers and what each is seeded with.
    """

    def __init__(self, driver: Driver, clock: VirtualClock, draws: Draws) -> None:
        self._driver = driver
        self._clock = clock
        self._draws = draws
        self._stamp = 0
        self._requests = 0
        self._held: dict[Token, Leased] = {}
        self._late: list[Token] = []
        self.accepted: set[str] = set()
        self.entries: list[Entry] = []
        self.due: dict[str, int] = {}

    async def run(self, steps: int) -> None:
        """Let three to five callers do so many things each, then drain; check the invariants."""
        async with anyio.create_task_group() as task_group:
            for caller in range(self._draws.integer(3, 5)):
                seed = self._draws.integer(0, 1 << 16)
                task_group.start_soon(self._live, caller, SeededDraws(seed), steps)
        await self._drain()
        self._check()

    async def _live(self, caller: int, draws: SeededDraws, steps: int) -> None:
        for _ in range(steps):
            await draws.choice((
                self._enqueue, self._claim, self._claim, self._settle, self._settle, self._extend,
                self._expire, self._pass_time,
            ))(caller, draws)  # fmt: skip

    async def _call(self, call: Callable[[], Awaitable[object]]) -> tuple[int, object]:
        """The stamp before the first try, and the answer of the one that was answered."""
        self._stamp += 1
        began = self._stamp
        while True:
            try:
                reply = await call()
            except DriverError as exc:
                if not exc.retryable:
                    raise
            else:
                self._stamp += 1
                return began, reply

    def _note(self, caller: int, what: str, token: Token, reply: str, began: int) -> None:
        at = self._clock.now()
        self.entries.append(Entry(caller, what, token, reply, began, self._stamp, at))

    async def _enqueue(self, caller: int, draws: SeededDraws) -> None:
        delay = 50.0 if draws.chance(20) else 0.0
        specs = [
            JobSpec(id=f"{caller}-{self._stamp}-{n}", kind="Kind", payload=b"", delay=delay,
                    max_attempts=50, retry=Backoff.fixed(50.0))
            for n in range(draws.integer(1, 4))
        ]  # fmt: skip
        due = self._clock.now() + round(delay * 1_000_000)
        _, replies = await self._call(lambda: self._driver.enqueue(specs))
        for spec, reply in zip(specs, replies, strict=True):  # type: ignore[call-overload]
            if reply.verdict not in {Accepted.ACCEPTED, Accepted.DUPLICATE}:
                raise ContractError(f"a fresh job was {reply.verdict}")
            self.accepted.add(spec.id)
            self.due[spec.id] = due

    async def _claim(self, caller: int, draws: SeededDraws) -> None:
        await self._claim_some(caller, draws.integer(1, 4))

    async def _claim_some(self, caller: int, room: int) -> int:
        self._requests += 1
        request = Claim(
            queues=("default",), rooms={Lane.ASYNC: Room(room)}, lease=LEASE,
            request_id=f"request-{self._requests}", worker_id=f"worker-{caller}",
        )  # fmt: skip
        began, reply = await self._call(lambda: self._driver.claim(request))
        jobs: list[Leased] = reply.jobs  # type: ignore[attr-defined]
        if len(jobs) > room:
            raise ContractError(f"{len(jobs)} jobs for a room of {room}")
        for job in jobs:
            self._note(caller, "claim", job.token, "leased", began)
            self._held[job.token] = job
        return len(jobs)

    def _token(self, draws: SeededDraws) -> Token | None:
        held, late = list(self._held), self._late
        if held and (not late or draws.chance(60)):
            return draws.choice(held)
        return draws.choice(late) if late else None

    async def _settle(self, caller: int, draws: SeededDraws) -> None:
        token = self._token(draws)
        if token is not None:
            event = draws.choice(EVENTS)
            await self._settle_as(caller, token, event, 50.0 if draws.chance(30) else 0.0)

    async def _settle_as(self, caller: int, token: Token, event: Event, delay: float) -> None:
        change = Change(
            token=token, event=event, delay=delay, refund=event in {Event.SNOOZE, Event.RELEASE},
        )  # fmt: skip
        self._held.pop(token, None)
        self._late.append(token)
        began, replies = await self._call(lambda: self._driver.settle([change]))
        verdict = replies[0].verdict  # type: ignore[index]
        self._note(caller, f"settle {event}", token, verdict, began)

    async def _extend(self, caller: int, draws: SeededDraws) -> None:
        token = self._token(draws)
        if token is not None:
            began, replies = await self._call(lambda: self._driver.extend([Renewal(token)], LEASE))
            self._note(caller, "extend", token, replies[0], began)  # type: ignore[index]

    async def _expire(self, caller: int, draws: SeededDraws) -> None:
        del caller, draws
        await self._call(lambda: self._driver.expire(100))

    async def _pass_time(self, caller: int, draws: SeededDraws) -> None:
        del caller
        self._clock.shift(100.0 if draws.chance(30) else 1.0)
        await checkpoint()

    # ---- afterwards

    async def _drain(self) -> None:
        """I20 to I22: with one healthy worker everything ends within bounded time."""
        for _ in range(40):
            for _ in range(100):
                if not await self._claim_some(99, 100):
                    break
                for token in list(self._held):
                    await self._settle_as(99, token, Event.COMPLETE, 0.0)
            if await self._all_ended():
                return
            self._clock.shift(LEASE + Timing(LEASE).grace + 50.0)
        raise ContractError("a healthy worker could not drain the store")

    async def _all_ended(self) -> bool:
        ids = sorted(self.accepted)
        if Capability.FETCH not in self._driver.capabilities:
            ended = {
                entry.token.id for entry in self.entries
                if entry.reply in {"applied", "already"}
                and entry.what in {"settle complete", "settle fail"}
            }  # fmt: skip
            return ended >= self.accepted
        _, reply = await self._call(lambda: self._driver.fetch(ids))
        found = cast("list[Fetched | None]", reply)
        lost = [job_id for job_id, one in zip(ids, found, strict=True) if one is None]
        if lost:
            raise ContractError(f"I1: accepted jobs are gone: {lost}")
        return all(one is not None and one.record.state in FINAL for one in found)

    def _check(self) -> None:
        by_job: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            by_job[entry.token.id].append(entry)
        if not by_job.keys() <= self.accepted:
            raise ContractError(f"I1: jobs that nobody enqueued: {by_job.keys() - self.accepted}")
        for job_id, entries in by_job.items():
            self._check_job(job_id, entries)

    def _check_job(self, job_id: str, entries: list[Entry]) -> None:
        told = "\n".join(map(repr, entries))
        leases = [entry for entry in entries if entry.what == "claim"]
        if any(entry.at < self.due[job_id] for entry in leases):
            raise ContractError(f"I2: {job_id} was handed out early\n{told}")
        deliveries = [entry.token.delivery for entry in leases]
        if len(set(deliveries)) != len(deliveries):
            raise ContractError(f"I3: one delivery of {job_id} was leased twice\n{told}")
        by_delivery = sorted(leases, key=lambda entry: entry.token.delivery)
        for one, later in pairwise(by_delivery):
            if later.ended < one.began:
                raise ContractError(f"I5: deliveries of {job_id} fell\n{told}")
        self._check_ends(job_id, entries, told)

    @staticmethod
    def _check_ends(job_id: str, entries: list[Entry], told: str) -> None:
        applied: dict[Token, set[str]] = defaultdict(set)
        for entry in entries:
            if entry.what.startswith("settle") and entry.reply != Verdict.LOST:
                applied[entry.token].add(entry.what)
        if any(len(events) > 1 for events in applied.values()):
            raise ContractError(f"I6: two ends of one delivery of {job_id} were applied\n{told}")
        ended = {
            token for token, events in applied.items()
            if events & {"settle complete", "settle fail"}
        }  # fmt: skip
        if len(ended) > 1:
            raise ContractError(f"I15: {job_id} ended for good twice\n{told}")
        newest: dict[int, int] = {}
        for entry in entries:
            if entry.what == "claim":
                newest[entry.token.delivery] = entry.began
        for entry in entries:
            is_good = entry.reply in {Extended.RENEWED, Extended.CANCEL, Verdict.APPLIED}
            overtaken = any(
                delivery > entry.token.delivery and began < entry.began
                and any(e.what == "claim" and e.token.delivery == delivery
                        and e.ended < entry.began for e in entries)
                for delivery, began in newest.items()
            )  # fmt: skip
            if entry.what != "claim" and is_good and overtaken:
                raise ContractError(f"I4: a stale token of {job_id} was honoured\n{told}")
