"""A wrapper that makes any driver fail now and then, the way networks do; from a seed.

Put it around a driver to see what your program, a worker, or the contract's programs make of it.
"""

from __future__ import annotations

import types
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from taskflow.abc import Driver
from taskflow.errors import DriverUnavailableError, OutcomeUnknownError
from taskflow.testing.draws import SeededDraws

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence

    from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
    from taskflow._core.records import (
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
        Wait,
        Wake,
    )
    from taskflow.testing.draws import Draws

T = TypeVar("T")

__all__ = ("Fault", "FaultyDriver")


class Fault(StrEnum):
    """What may happen to a call."""

    NONE = "none"
    """It goes well."""
    BEFORE = "before"
    """It fails and was surely not applied."""
    AFTER = "after"
    """It was applied, and its reply is lost."""
    DELAY = "delay"
    """It goes well, some checkpoints later."""
    CANCEL = "cancel"
    """It is cancelled at one of its checkpoints: applied as a whole or not at all."""


class FaultyDriver(Driver):
    """A driver with faults.

    Args:
        driver: The real one.
        draws: Chooses; default: from ``seed``.
        seed: The same seed makes the same faults for the same calls.
        percent: How many of a hundred calls have a fault.
        faults: Which faults there are.

    Attributes:
        is_healed: Set it, and nothing fails any more.
        counts: Faults by kind, so that a test can see that there were some.
    """

    def __init__(
        self, driver: Driver, *, draws: Draws | None = None, seed: int = 0, percent: int = 25,
        faults: Sequence[Fault] = (Fault.BEFORE, Fault.AFTER, Fault.DELAY, Fault.CANCEL),
    ) -> None:  # fmt: skip
        self._driver = driver
        self._draws: Draws = SeededDraws(seed) if draws is None else draws
        self._percent = percent
        self._faults = tuple(faults)
        self.is_healed = False
        self.counts: Counter[Fault] = Counter()
        # What the wrapped driver says of itself holds for this one.
        self.name = driver.name  # type: ignore[misc]
        self.capabilities = driver.capabilities  # type: ignore[misc]
        self.facts = driver.facts  # type: ignore[misc]

    @property
    def redacted(self) -> str:
        """The wrapped driver's."""
        return self._driver.redacted

    async def open(self) -> None:
        """Open the wrapped driver; never fails by itself."""
        await self._driver.open()

    async def aclose(self) -> None:
        """Close the wrapped driver."""
        await self._driver.aclose()

    def twin(self) -> Driver:
        """The wrapped driver's twin, without faults: renewals have a thread of their own."""
        return self._driver.twin()

    async def check(self) -> Sequence[str]:
        """The wrapped driver's."""
        return await self._driver.check()

    async def _run(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        fault = Fault.NONE
        if not self.is_healed and self._draws.chance(self._percent):
            fault = self._draws.choice(self._faults)
        self.counts[fault] += 1
        if fault is Fault.BEFORE:
            await checkpoint()
            raise DriverUnavailableError(
                driver=self.name, problem=f"{what}: a planted fault before"
            )
        if fault is Fault.CANCEL:
            return await self._cut(what, call)
        if fault is Fault.DELAY:
            for _ in range(self._draws.integer(1, 5)):
                await checkpoint()
        reply = await call()
        if fault is Fault.AFTER:
            raise OutcomeUnknownError(driver=self.name, problem=f"{what}: a planted lost reply")
        return reply

    async def _cut(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        with CancelScope() as scope:
            steps = self._draws.integer(0, 4)
            coroutine = cast("Coroutine[Any, Any, T]", _as_coroutine(call()))
            return await _cancel_at(coroutine, steps, scope)
        raise OutcomeUnknownError(driver=self.name, problem=f"{what}: a planted cancellation")

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """With faults."""
        return await self._run("enqueue", lambda: self._driver.enqueue(jobs))

    async def enqueue_on(self, connection: object, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """Without faults: what breaks there breaks the caller's own transaction."""
        return await self._driver.enqueue_on(connection, jobs)

    async def claim(self, request: Claim) -> Claimed:
        """With faults."""
        return await self._run("claim", lambda: self._driver.claim(request))

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """With faults."""
        return await self._run("extend", lambda: self._driver.extend(renewals, lease))

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """With faults."""
        return await self._run("settle", lambda: self._driver.settle(changes))

    async def expire(self, limit: int) -> list[str]:
        """With faults."""
        return await self._run("expire", lambda: self._driver.expire(limit))

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """With faults."""
        return await self._run("cancel", lambda: self._driver.cancel(ids))

    async def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """With faults."""
        return await self._run("fetch", lambda: self._driver.fetch(ids))

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """With faults."""
        return await self._run("replay", lambda: self._driver.replay(ids))

    async def purge(self, queue: str) -> int:
        """With faults."""
        return await self._run("purge", lambda: self._driver.purge(queue))

    async def pause(self, queues: Sequence[str]) -> None:
        """With faults."""
        await self._run("pause", lambda: self._driver.pause(queues))

    async def resume(self, queues: Sequence[str]) -> None:
        """With faults."""
        await self._run("resume", lambda: self._driver.resume(queues))

    async def list_jobs(self, query: JobQuery) -> Page:
        """With faults."""
        return await self._run("list_jobs", lambda: self._driver.list_jobs(query))

    async def stats(self) -> list[QueueStats]:
        """With faults."""
        return await self._run("stats", self._driver.stats)

    async def prune(self, limit: int, keep: float) -> int:
        """With faults."""
        return await self._run("prune", lambda: self._driver.prune(limit, keep))

    async def wait(self, request: Wait) -> Wake:
        """With faults."""
        return await self._run("wait", lambda: self._driver.wait(request))


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


@types.coroutine
def _cancel_at(
    coroutine: Coroutine[Any, Any, T], steps: int, scope: CancelScope
) -> Generator[Any, Any, T]:
    """Await a coroutine and cancel the scope at its n-th checkpoint."""
    step: Callable[..., Any] = coroutine.send
    argument: Any = None
    while True:
        try:
            yielded = step(argument)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if steps == 0:
            scope.cancel()
        steps -= 1
        try:
            argument = yield yielded
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as exc:  # handed to the call, which has to bear it
            step, argument = coroutine.throw, exc
        else:
            step = coroutine.send
