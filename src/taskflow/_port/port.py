"""One call of a driver, made safe: a deadline, one kind of error, an event, and repeats."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from taskflow import events
from taskflow._core.records import Timing
from taskflow._port.managing import Managing
from taskflow.abc import Capability
from taskflow.errors import (
    DriverError,
    OutcomeUnknownError,
    StoreBusyError,
    StoreFullError,
    TaskflowError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

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
    from taskflow.abc import Driver, Instrument

T = TypeVar("T")

__all__ = ("Port",)

logger = logging.getLogger("taskflow.port")

FIRST_PAUSE: Final = 0.05
"""Seconds before the first repeat; doubled, with jitter, up to ``LAST_PAUSE``."""
LAST_PAUSE: Final = 5.0
LONGEST_DOUBT: Final = 0.5
"""The longest pause (seconds) before a call of unknown outcome is sent again."""
LONGEST_PAUSE: Final = 1.0
"""Seconds between two tries, at most, of an enqueue that somebody's transaction is in the way of."""
WAIT_SLACK: Final = 5.0
"""Seconds that a driver's wait may overrun its own timeout before it counts as lost."""


class Port(Managing):
    """Stands before a driver. Producers get an error soon; a worker's calls are repeated.

    Args:
        driver: An open driver.
        lease: The lease of this app's workers in seconds; deadlines follow from it.
        call_timeout: Deadline in seconds of every call that has no other.
        instrument: Receives ``DriverCall``, ``DriverAway`` and ``DriverBack``.
    """

    def __init__(
        self, driver: Driver, *, lease: float, call_timeout: float, instrument: Instrument | None
    ) -> None:
        self.driver = driver
        self.timing = Timing(lease)
        self._call_timeout = call_timeout
        self._instrument = instrument

    def emit(self, event: events.TaskflowEvent) -> None:
        """Hand an event to the instrument; what that raises is logged and goes no further."""
        if self._instrument is None:
            return
        try:
            self._instrument.handle(event)
        except Exception:
            logger.exception("the instrument raised on %s", type(event).__name__)

    @property
    def is_watched(self) -> bool:
        """Somebody listens, so events are worth making."""
        return self._instrument is not None

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """Store jobs; sent again until the deadline while the outcome is unknown, or while
        somebody's open transaction is in the way.
        """
        deadline, pause = time.monotonic() + self._call_timeout, FIRST_PAUSE
        while True:
            try:
                return await self.enqueue_soon(jobs)
            except StoreBusyError:
                if time.monotonic() + pause >= deadline:
                    raise
            await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, LONGEST_PAUSE)

    async def enqueue_soon(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """The same for a batch of many callers: it does not wait for transactions of others."""
        return await self.resend("enqueue", len(jobs), lambda: self.driver.enqueue(jobs))

    async def enqueue_on(self, connection: object, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """One try, on the caller's connection: what goes wrong is the caller's transaction's.

        Raises:
            UnsupportedError: The driver does not declare transactions; nothing was sent.
        """
        if Capability.TRANSACTIONS not in self.driver.capabilities:
            raise UnsupportedError(driver=self.driver.name, capability=Capability.TRANSACTIONS)
        return await self._call(
            "enqueue_on", len(jobs), lambda: self.driver.enqueue_on(connection, jobs),
            self._call_timeout,
        )  # fmt: skip

    async def claim(self, request: Claim) -> Claimed:
        """One try; the caller sends the same request again."""
        return await self._call("claim", 0, lambda: self.driver.claim(request), self.timing.call)

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """One try; the caller has the next beat."""
        return await self._call(
            "extend", len(renewals), lambda: self.driver.extend(renewals, lease), self.timing.call
        )

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """One try; the caller sends the same changes again."""
        return await self._call(
            "settle", len(changes), lambda: self.driver.settle(changes), self.timing.call
        )

    async def expire(self, limit: int) -> list[str]:
        """One try."""
        return await self._call("expire", 0, lambda: self.driver.expire(limit), self.timing.call)

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """Repeated like an enqueue."""
        return await self.resend("cancel", len(ids), lambda: self.driver.cancel(ids))

    async def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """Repeated like an enqueue."""
        return await self.resend("fetch", len(ids), lambda: self.driver.fetch(ids))

    async def wait(self, request: Wait) -> Wake:
        """One try."""
        return await self._call(
            "wait", 0, lambda: self.driver.wait(request), request.timeout + WAIT_SLACK
        )

    async def persist(
        self, operation: str, call: Callable[[], Awaitable[T]], *, until: float = float("inf")
    ) -> T:
        """Repeat a call while the store is away, with growing pauses, for a worker.

        Args:
            operation: For logs and events.
            call: Makes one try; the same arguments each time.
            until: The monotonic time from which it gives up.

        Raises:
            DriverError: Of a kind that repeating does not cure, or the time is over.
        """
        pause, began = FIRST_PAUSE, time.monotonic()
        away = False
        while True:
            try:
                result = await call()
            except DriverError as exc:
                if not (exc.retryable or isinstance(exc, StoreFullError)):
                    raise
                if time.monotonic() >= until:
                    raise
                if not away:
                    away = True
                    logger.warning("%s: the store is away, trying again: %s", operation, exc)
                    self.emit(events.DriverAway(operation=operation, error=type(exc).__name__))
                await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(pause * 2, LAST_PAUSE)
            else:
                if away:
                    seconds = time.monotonic() - began
                    logger.info("%s: the store is back after %.1f s", operation, seconds)
                    self.emit(events.DriverBack(operation=operation, seconds=seconds))
                return result

    async def resend(self, operation: str, batch: int, call: Callable[[], Awaitable[T]]) -> T:
        """Send the very same call again while its outcome is unknown, within one deadline.

        Raises:
            OutcomeUnknownError: No try was answered. So it stays when a later try finds the store
                away or refusing: that one was surely not applied, the first one perhaps.
            DriverError: Of another kind, as the first try met it.
        """
        deadline, pause = time.monotonic() + self._call_timeout, FIRST_PAUSE
        doubt: OutcomeUnknownError | None = None
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                return await self._call(operation, batch, call, left)
            except OutcomeUnknownError as exc:
                doubt = exc
            except DriverError as exc:
                if doubt is None:
                    raise
                if not exc.retryable:
                    raise doubt from exc
            if time.monotonic() + pause >= deadline:
                raise doubt
            await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, LONGEST_DOUBT)

    async def _call(
        self, operation: str, batch: int, call: Callable[[], Awaitable[T]], timeout: float
    ) -> T:
        began = time.monotonic()
        try:
            with anyio.fail_after(timeout):
                result = await call()
        except TimeoutError as exc:
            self._note(operation, batch, began, exc)
            raise OutcomeUnknownError(
                driver=self.driver.name, problem=f"{operation} gave no answer in {timeout:g} s"
            ) from exc
        except TaskflowError as exc:
            self._note(operation, batch, began, exc)
            raise
        except Exception as exc:
            self._note(operation, batch, began, exc)
            raise DriverError(
                driver=self.driver.name, problem=f"{operation} raised {type(exc).__name__}: {exc}"
            ) from exc
        self._note(operation, batch, began, None)
        return result

    def _note(self, operation: str, batch: int, began: float, error: Any) -> None:
        if self._instrument is not None:
            self.emit(
                events.DriverCall(
                    operation=operation, batch=batch, seconds=time.monotonic() - began,
                    error=None if error is None else type(error).__name__,
                )
            )  # fmt: skip
