"""``MemoryDriver``: the seam in front of a ``MemoryStore``."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, ClassVar, Final, final

import anyio
from anyio.lowlevel import checkpoint

from taskflow._core.records import Wait, Wake
from taskflow.abc import Capability, Driver, Facts
from taskflow.drivers.memory.store import MemoryStore
from taskflow.drivers.memory.waiting import Waiter
from taskflow.errors import DriverUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    )
    from taskflow.abc import Clock

__all__ = ("MemoryDriver",)


class ProcessClock:
    """This process's clocks."""

    def now(self) -> int:
        """Microseconds of Unix time."""
        return time.time_ns() // 1000

    def uptime(self) -> int:
        """Microseconds of the monotonic clock: nothing here outlives the process."""
        return time.monotonic_ns() // 1000


_named: Final[weakref.WeakValueDictionary[str, MemoryStore]] = weakref.WeakValueDictionary()


@final
class MemoryDriver(Driver):
    """Jobs in this process's memory; for tests and for workers inside one program.

    Args:
        name: Drivers of one name share their jobs while one of them lives. Default: private.
        clock: Where the time comes from; tests shift it.
    """

    name: ClassVar[str] = "memory"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.FETCH, Capability.LIST, Capability.COUNTS, Capability.CANCEL,
            Capability.PAUSE, Capability.PRIORITY, Capability.UNIQUE, Capability.RESULTS,
            Capability.FLOWS, Capability.NOTIFY,
        }
    )  # fmt: skip
    facts: ClassVar[Facts] = Facts(shared=False, steady_leases=True)

    def __init__(
        self, *, name: str | None = None, clock: Clock | None = None,
        store: MemoryStore | None = None,
    ) -> None:  # fmt: skip
        if store is None and name is not None:
            store = _named.get(name)
        self._label = name or ""
        self._store = MemoryStore(clock or ProcessClock()) if store is None else store
        if name is not None:
            _named[name] = self._store
        self._is_open = False

    def __repr__(self) -> str:
        return f"<MemoryDriver {self._label or hex(id(self._store))}>"

    @property
    def redacted(self) -> str:
        """Its URL."""
        return f"memory://{self._label}"

    async def open(self) -> None:
        """Nothing to connect to."""
        self._is_open = True
        await checkpoint()

    async def aclose(self) -> None:
        """The jobs stay while a driver of this store lives."""
        self._is_open = False
        await checkpoint()

    def twin(self) -> MemoryDriver:
        """Another driver on the same store."""
        return MemoryDriver(store=self._store)

    async def check(self) -> Sequence[str]:
        """Warn that nothing is durable."""
        await checkpoint()
        return ["memory: jobs are gone when this process ends"]

    @property
    def _live(self) -> MemoryStore:
        if not self._is_open:
            raise DriverUnavailableError(driver=self.name, problem="the driver is closed")
        return self._store

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """See ``Driver.enqueue``."""
        await checkpoint()
        return self._live.enqueue(jobs)

    async def claim(self, request: Claim) -> Claimed:
        """See ``Driver.claim``."""
        await checkpoint()
        return self._live.claim(request)

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """See ``Driver.extend``."""
        await checkpoint()
        return self._live.extend(renewals, lease)

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """See ``Driver.settle``."""
        await checkpoint()
        return self._live.settle(changes)

    async def expire(self, limit: int) -> list[str]:
        """See ``Driver.expire``."""
        await checkpoint()
        return self._live.expire(limit)

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """See ``Driver.cancel``."""
        await checkpoint()
        return self._live.cancel(ids)

    async def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """See ``Driver.fetch``."""
        await checkpoint()
        return self._live.fetch(ids)

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """See ``Driver.replay``."""
        await checkpoint()
        return self._live.replay(ids)

    async def purge(self, queue: str) -> int:
        """See ``Driver.purge``."""
        await checkpoint()
        return self._live.purge(queue)

    async def pause(self, queues: Sequence[str]) -> None:
        """See ``Driver.pause``."""
        await checkpoint()
        self._live.pause(queues)

    async def resume(self, queues: Sequence[str]) -> None:
        """See ``Driver.resume``."""
        await checkpoint()
        self._live.resume(queues)

    async def list_jobs(self, query: JobQuery) -> Page:
        """See ``Driver.list_jobs``."""
        await checkpoint()
        return self._live.list_jobs(query)

    async def stats(self) -> list[QueueStats]:
        """See ``Driver.stats``."""
        await checkpoint()
        return self._live.stats()

    async def prune(self, limit: int, keep: float) -> int:
        """See ``Driver.prune``."""
        await checkpoint()
        return self._live.prune(limit, keep)

    async def wait(self, request: Wait) -> Wake:
        """See ``Driver.wait``."""
        await checkpoint()
        store, waiter = self._live, Waiter(request)
        store.waiters.join(waiter)
        try:
            with anyio.move_on_after(request.timeout):
                while True:
                    waiter.event = anyio.Event()
                    wake = store.glance(request)
                    if wake.work or wake.finals or wake.cancels:
                        return wake
                    await waiter.event.wait()
        finally:
            store.waiters.leave(waiter)
        return Wake()
