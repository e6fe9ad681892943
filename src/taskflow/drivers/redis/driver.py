"""``RedisDriver``: the seam, and the bridge to the event loop that redis-py knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, final

import anyio
import anyio.lowlevel

from taskflow._bridge import Bridge
from taskflow._core.records import MICRO
from taskflow.abc import Capability, Driver, Facts
from taskflow.drivers.redis import health
from taskflow.drivers.redis.address import read_url
from taskflow.drivers.redis.faults import DRIVER
from taskflow.drivers.redis.server import CONNECTING, Server
from taskflow.drivers.redis.store import Store
from taskflow.errors import ConfigError, DriverUnavailableError, OutcomeUnknownError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

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

T = TypeVar("T")

__all__ = ("RedisDriver",)

SLACK: Final = 10.0
"""Seconds beyond the driver's own deadlines after which the bridge gives a call up."""


@final
class RedisDriver(Driver):
    """Keeps jobs in Redis 6.2 or newer, or Valkey, under one namespace.

    Each operation is one script, so it happens as a whole. Time is the server's. All keys of a
    namespace share one hash tag, so that it works on a cluster, on one of its nodes.

    Args:
        url: ``redis://user:password@host:6379/0``, ``rediss://`` for TLS, ``unix:///path?db=0``,
            ``redis+sentinel://host,host/master/0``, ``redis+cluster://host,host``.
        password: Where the URL has none.
        db: Where the URL says none.
        max_connections: Connections at most, beside the one that listens.
        namespace: Apps of one namespace share their jobs.
        call_timeout: Seconds after which a call is given up.
        clock: Tests shift the server's time by its ``offset`` (seconds).

    Raises:
        ConfigError: The URL or the namespace cannot be used.
    """

    name: ClassVar[str] = DRIVER
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.FETCH, Capability.LIST, Capability.COUNTS, Capability.CANCEL,
            Capability.PAUSE, Capability.PRIORITY, Capability.UNIQUE, Capability.RESULTS,
            Capability.FLOWS, Capability.NOTIFY,
        }
    )  # fmt: skip
    facts: ClassVar[Facts] = Facts(time_precision=0.001)

    def __init__(
        self, url: str = "redis://localhost:6379", *, password: str | None = None, db: int = 0,
        max_connections: int = 10, namespace: str = "taskflow", call_timeout: float = 30.0,
        clock: Any = None,
    ) -> None:  # fmt: skip
        if not namespace or not namespace.isprintable() or set(namespace) & set("{}"):
            raise ConfigError(
                option="redis_namespace", value=namespace, problem="expected text without braces"
            )
        self._options: dict[str, Any] = {
            "password": password, "db": db, "max_connections": max_connections,
            "namespace": namespace, "call_timeout": call_timeout, "clock": clock,
        }  # fmt: skip
        self._url = url
        self._address = read_url(url, password=password, db=db)
        self._store: Store | None = None
        self._bridge = Bridge(DRIVER, timeout=2 * call_timeout + CONNECTING + SLACK)

    def __repr__(self) -> str:
        return f"<RedisDriver {self.redacted}>"

    @property
    def redacted(self) -> str:
        """Its URL without the password."""
        return self._address.shown

    def twin(self) -> RedisDriver:
        """Another driver on the same store, with connections of its own."""
        return RedisDriver(self._url, **self._options)

    def _shift(self) -> int:
        return round(getattr(self._options["clock"], "offset", 0.0) * MICRO)

    # ---- opening and closing

    async def open(self) -> None:
        """Connect, and see that the server is one to keep jobs in.

        Raises:
            DriverUnavailableError: There is no server.
            StoreRefusedError: It does not let us in, is too old, or throws keys away.
            UsageError: It is open already.
        """
        if self._store is not None:
            raise UsageError(f"{self.redacted}: the driver is open already")
        await self._bridge.start()
        try:
            await self._bridge.call(self._connect)
        except BaseException:
            # What was made is known even where the caller went before it was told.
            await self.aclose()
            raise

    async def _connect(self) -> None:
        options = self._options
        store = self._store = Store(
            Server(self._address), tag=f"{{{options['namespace']}}}", shift=self._shift,
            most=options["max_connections"], deadline=options["call_timeout"],
        )  # fmt: skip
        await health.examine(store, self.redacted)

    async def aclose(self) -> None:
        """Close every connection. Calls under way end with an error."""
        store, self._store = self._store, None
        with anyio.CancelScope(shield=True):
            try:
                if store is not None:
                    await self._bridge.call(_close, store)
            finally:
                await self._bridge.aclose()

    async def check(self) -> Sequence[str]:
        """Warn of settings that lose what was accepted.

        Raises:
            StoreRefusedError: The server throws keys away when memory is short, or the user may
                not do what a worker does.
        """
        return await self._call(health.check, self.redacted)

    # ---- the operations

    async def _call(
        self, operation: Callable[..., Coroutine[Any, Any, T]], *args: Any,
        timeout: float | None = None,
    ) -> T:  # fmt: skip
        try:
            return await self._bridge.call(operation, self._opened, *args, timeout=timeout)
        except TimeoutError as exc:
            raise OutcomeUnknownError(driver=DRIVER, problem="no answer in time") from exc

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise DriverUnavailableError(driver=DRIVER, problem="the driver is closed")
        return self._store

    async def _in_parts(
        self, operation: Callable[..., Coroutine[Any, Any, list[T]]], items: Sequence[Any],
        *args: Any,
    ) -> list[T]:  # fmt: skip
        """One call for each ``max_batch`` items; every item is a step of its own anyhow."""
        most = self.facts.max_batch
        if not items:
            await anyio.lowlevel.checkpoint()
        replies: list[T] = []
        for begin in range(0, len(items), most):
            replies += await self._call(operation, items[begin : begin + most], *args)
        return replies

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """See ``Driver.enqueue``."""
        return await self._in_parts(Store.enqueue, jobs)

    async def claim(self, request: Claim) -> Claimed:
        """See ``Driver.claim``."""
        return await self._call(Store.claim, request)

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """See ``Driver.extend``."""
        return await self._in_parts(Store.extend, renewals, lease)

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """See ``Driver.settle``."""
        return await self._in_parts(Store.settle, changes)

    async def expire(self, limit: int) -> list[str]:
        """See ``Driver.expire``."""
        return await self._call(Store.expire, limit)

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """See ``Driver.cancel``."""
        return await self._in_parts(Store.cancel, ids)

    async def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """See ``Driver.fetch``."""
        return await self._in_parts(Store.fetch, ids)

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """See ``Driver.replay``."""
        return await self._in_parts(Store.replay, ids)

    async def purge(self, queue: str) -> int:
        """See ``Driver.purge``; deletes in steps, and only what was there when it began."""
        return await self._call(Store.purge, queue)

    async def pause(self, queues: Sequence[str]) -> None:
        """See ``Driver.pause``."""
        await self._call(Store.pause, queues, True)

    async def resume(self, queues: Sequence[str]) -> None:
        """See ``Driver.resume``."""
        await self._call(Store.pause, queues, False)

    async def list_jobs(self, query: JobQuery) -> Page:
        """See ``Driver.list_jobs``."""
        return await self._call(Store.list_jobs, query)

    async def stats(self) -> list[QueueStats]:
        """See ``Driver.stats``."""
        return await self._call(Store.stats)

    async def prune(self, limit: int, keep: float) -> int:
        """See ``Driver.prune``."""
        return await self._call(Store.prune, limit, keep)

    async def wait(self, request: Wait) -> Wake:
        """See ``Driver.wait``."""
        return await self._call(_wait, request, timeout=request.timeout + SLACK)


async def _close(store: Store) -> None:
    store.close()


async def _wait(store: Store, request: Wait) -> Wake:
    return await store.waits.wait(request)
