"""The calls that people make, on their way through the port."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from taskflow.abc import Capability
from taskflow.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Protocol

    from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
    from taskflow._core.records import JobSpec
    from taskflow.abc import Driver

    T = TypeVar("T")

    class _Sender(Protocol):
        driver: Driver

        async def resend(
            self, operation: str, batch: int, call: Callable[[], Awaitable[T]]
        ) -> T: ...


__all__ = ("Managing", "missing_capability")


class Managing:
    """What the port has for people: each call is sent again while its outcome is unknown."""

    async def replay(self: _Sender, ids: Sequence[str]) -> list[Replayed]:
        """See ``Driver.replay``."""
        return await self.resend("replay", len(ids), lambda: self.driver.replay(ids))

    async def purge(self: _Sender, queue: str) -> int:
        """See ``Driver.purge``; counts what the last try deleted."""
        return await self.resend("purge", 0, lambda: self.driver.purge(queue))

    async def pause(self: _Sender, queues: Sequence[str]) -> None:
        """See ``Driver.pause``."""
        await self.resend("pause", len(queues), lambda: self.driver.pause(queues))

    async def resume(self: _Sender, queues: Sequence[str]) -> None:
        """See ``Driver.resume``."""
        await self.resend("resume", len(queues), lambda: self.driver.resume(queues))

    async def list_jobs(self: _Sender, query: JobQuery) -> Page:
        """See ``Driver.list_jobs``."""
        return await self.resend("list_jobs", 0, lambda: self.driver.list_jobs(query))

    async def stats(self: _Sender) -> list[QueueStats]:
        """See ``Driver.stats``."""
        return await self.resend("stats", 0, self.driver.stats)

    async def prune(self: _Sender, limit: int, keep: float) -> int:
        """See ``Driver.prune``."""
        return await self.resend("prune", 0, lambda: self.driver.prune(limit, keep))


def missing_capability(driver: Driver, spec: JobSpec) -> UnsupportedError | None:
    """What a job asks for that the driver does not declare."""
    for wanted, capability in (
        (spec.priority, Capability.PRIORITY), (spec.unique, Capability.UNIQUE),
        (spec.after, Capability.FLOWS),
    ):  # fmt: skip
        if wanted and capability not in driver.capabilities:
            return UnsupportedError(driver=driver.name, capability=capability)
    return None
