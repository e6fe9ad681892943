"""How bodies in a process child dispatch: through their parent, who has the store."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, final

import anyio.to_thread

from taskflow._worker.lanes.frames import Dispatch, Stored
from taskflow.abc import Driver
from taskflow.errors import DriverError, DriverUnavailableError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taskflow._core.records import (
        Change,
        Claim,
        Claimed,
        Enqueued,
        Extended,
        JobSpec,
        Renewal,
        Settled,
        Wait,
        Wake,
    )

__all__ = ("ParentDriver",)


@final
class ParentDriver(Driver):
    """Enqueues by a frame to the parent; everything else is the parent's own business.

    While a body runs, the parent sends nothing but answers, so whoever asked may read.
    """

    name: ClassVar[str] = "process child"

    def __init__(self, send: Callable[[Dispatch], None], receive: Callable[[], Any]) -> None:
        self._send = send
        self._receive = receive
        self._asking = threading.Lock()
        self._is_open = False

    @contextmanager
    def while_body_runs(self) -> Iterator[None]:
        """Take jobs inside; leaving waits for the last answer.

        What a body left behind in threads may ask no more: it would read the next job's frames.
        """
        self._is_open = True
        try:
            yield
        finally:
            with self._asking:
                self._is_open = False

    def _ask(self, jobs: list[JobSpec]) -> list[Enqueued]:
        with self._asking:
            if not self._is_open:
                raise self._refused("dispatch() after the body has ended")
            self._send(Dispatch(jobs))
            answer = self._receive()
        if not isinstance(answer, Stored):
            raise DriverUnavailableError(driver=self.name, problem="the worker has hung up")
        if answer.error:
            raise DriverError(driver=self.name, problem=answer.error)
        return answer.replies

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """See ``Driver.enqueue``."""
        return await anyio.to_thread.run_sync(self._ask, list(jobs))

    async def open(self) -> None:
        """Nothing to connect to."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def twin(self) -> Driver:
        """Not in a child."""
        raise self._refused("leases")

    async def check(self) -> Sequence[str]:
        """Nothing to warn of."""
        return ()

    async def claim(self, request: Claim) -> Claimed:  # noqa: ARG002
        """Not in a child."""
        raise self._refused("claim")

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:  # noqa: ARG002
        """Not in a child."""
        raise self._refused("extend")

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:  # noqa: ARG002
        """Not in a child."""
        raise self._refused("settle")

    async def expire(self, limit: int) -> list[str]:  # noqa: ARG002
        """Not in a child."""
        raise self._refused("expire")

    async def wait(self, request: Wait) -> Wake:  # noqa: ARG002
        """Not in a child."""
        raise self._refused("wait")

    def _refused(self, what: str) -> UnsupportedError:
        return UnsupportedError(driver=self.name, capability=what)
