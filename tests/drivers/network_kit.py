"""Two stores, each behind a proxy that breaks connections, told of in the same words."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

import anyio

from taskflow._core.queries import JobQuery, Replayed
from taskflow._core.records import (
    Cancelled,
    Change,
    Claim,
    Enqueued,
    JobSpec,
    Lane,
    Leased,
    Renewal,
    Room,
    Wait,
)
from taskflow._core.states import Event
from taskflow.abc import Driver
from taskflow.drivers.postgres import PostgresDriver
from taskflow.drivers.redis import RedisDriver
from taskflow.errors import DriverUnavailableError, OutcomeUnknownError
from tests.drivers import postgres_kit, redis_kit
from tests.drivers.proxy import Proxy, proxied
from tests.drivers.redis_server import RedisServer
from tests.drivers.servers import PostgresServer

T = TypeVar("T")


class Store(Protocol):
    """A server, a place on it for one test, and drivers on that place."""

    proxy: Proxy

    def driver(
        self, *, clock: Shift | None = None, most: int = 2, tells: bool = True, **options: Any
    ) -> Driver:  # fmt: skip
        """An unopened driver whose connections go through the proxy; ``tells=False`` where no
        call may be made but those of the test.
        """
        ...

    async def connections(self) -> int:
        """How many connections of taskflow's the server counts."""
        ...

    async def kill(self) -> int:
        """Have the server end every connection of taskflow's."""
        ...


class Shift:
    """Seconds by which the server's clock is shifted, as both drivers take it."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return self.offset


class PostgresStore:
    """Tables in a schema of their own."""

    def __init__(self, proxy: Proxy, db: postgres_kit.Admin) -> None:
        self.proxy, self._db = proxy, db
        self._table = f"{postgres_kit.new_schema()}.task_queue"

    def driver(
        self, *, clock: Shift | None = None, most: int = 2, tells: bool = True, **options: Any
    ) -> Driver:  # fmt: skip
        return PostgresDriver(
            self.proxy.url, queue_table=self._table, min_pool_size=0, max_pool_size=most,
            clock_offset=clock or 0.0, notify=tells, **options,
        )  # fmt: skip

    async def connections(self) -> int:
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'taskflow'"
        return int(await self._db.value(count))

    async def kill(self) -> int:
        return await self._db.terminate_all()


class RedisStore:
    """A namespace."""

    def __init__(self, proxy: Proxy, db: redis_kit.Admin) -> None:
        self.proxy, self._db = proxy, db
        self._namespace = redis_kit.new_namespace()

    def driver(
        self, *, clock: Shift | None = None, most: int = 2, tells: bool = True, **options: Any
    ) -> Driver:  # fmt: skip
        return RedisDriver(
            self.proxy.url, namespace=self._namespace, max_connections=most, clock=clock, **options
        )

    async def connections(self) -> int:
        return len(await self._db.clients())

    async def kill(self) -> int:
        ids = await self._db.clients()
        return sum([await self._db.ask("CLIENT", "KILL", "ID", one) for one in ids])


@asynccontextmanager
async def on_postgres(server: PostgresServer) -> AsyncIterator[Store]:
    async with postgres_kit.admin(server.url) as db, proxied(server.url) as proxy:
        store = PostgresStore(proxy, db)
        driver = store.driver()
        assert isinstance(driver, PostgresDriver)
        await driver.migrate()
        yield store


@asynccontextmanager
async def on_redis(server: RedisServer) -> AsyncIterator[Store]:
    async with redis_kit.admin(server.url) as db, proxied(server.url) as proxy:
        yield RedisStore(proxy, db)


ON: Mapping[str, Callable[[Any], AbstractAsyncContextManager[Store]]] = {
    "postgres": on_postgres, "redis": on_redis,
}  # fmt: skip


@asynccontextmanager
async def opened(driver: Driver) -> AsyncIterator[Driver]:
    await driver.open()
    try:
        yield driver
    finally:
        await driver.aclose()


# ---- every operation


LAPSES = 1800.0
"""The lease in seconds of the job that ``expire`` ends."""


class Calls:
    """One call of each operation of the seam on one driver, with something for it to do.

    Each operation has a job of its own, named after it, so that what one does is nothing to the
    others.

    Args:
        driver: An open one.
        name: Before the names of the jobs, for several sets of them in one store.
        limit: Of the operations that do something to whatever they find.
    """

    def __init__(self, driver: Driver, name: str = "", *, limit: int = 10) -> None:
        self.driver = driver
        self._name, self._limit = name, limit
        self._leased: dict[str, Leased] = {}

    async def prepare(self) -> None:
        """Store what the operations need. ``expire`` needs ``LAPSES`` seconds to pass, too."""
        for name in ("extend", "settle", "expire", "replay", "prune"):
            await self._lease(name, lease=LAPSES if name == "expire" else 86_400)
        for name, event in (("replay", Event.FAIL), ("prune", Event.COMPLETE)):
            await self._settle(name, event)
        await self.driver.enqueue(
            [self._spec(one) for one in ("claim", "cancel", "fetch", "purge")]
        )

    def _spec(self, name: str, **options: Any) -> JobSpec:
        full = self._name + name
        return JobSpec(id=full, kind="Job", queue=full, payload=full.encode(), **options)

    def _request(self, name: str, lease: float = 86_400) -> Claim:
        full = self._name + name
        return Claim(
            queues=(full,), rooms={Lane.ASYNC: Room(1)}, lease=lease,
            request_id=f"{full}-request", worker_id="worker",
        )  # fmt: skip

    async def _lease(self, name: str, lease: float) -> None:
        await self.driver.enqueue([self._spec(name, result_ttl=0.0 if name == "prune" else 86_400)])
        (job,) = (await self.driver.claim(self._request(name, lease=lease))).jobs
        self._leased[name] = job

    async def _settle(self, name: str, event: Event) -> Any:
        return await self.driver.settle([Change(token=self._leased[name].token, event=event)])

    # What each one does.

    async def enqueue(self) -> list[Enqueued]:
        return await self.driver.enqueue([self._spec("enqueue")])

    async def claim(self) -> Any:
        return (await self.driver.claim(self._request("claim"))).jobs

    async def extend(self) -> Any:
        return await self.driver.extend([Renewal(self._leased["extend"].token)], 86_400)

    async def settle(self) -> Any:
        return await self._settle("settle", Event.COMPLETE)

    async def expire(self) -> list[str]:
        return await self.driver.expire(self._limit)

    async def cancel(self) -> list[Cancelled]:
        return await self.driver.cancel([self._name + "cancel"])

    async def fetch(self) -> Any:
        return await self.driver.fetch([self._name + "fetch", "nobody"])

    async def replay(self) -> list[Replayed]:
        return await self.driver.replay([self._name + "replay"])

    async def purge(self) -> int:
        return await self.driver.purge(self._name + "purge")

    async def pause(self) -> None:
        await self.driver.pause([self._name + "pause"])

    async def resume(self) -> None:
        await self.driver.resume([self._name + "pause"])

    async def list_jobs(self) -> Any:
        return (await self.driver.list_jobs(JobQuery(queue=self._name + "fetch"))).jobs

    async def stats(self) -> Any:
        queue = self._name + "fetch"
        return {one.queue: one.counts for one in await self.driver.stats() if one.queue == queue}

    async def prune(self) -> int:
        return await self.driver.prune(self._limit, 0.0)

    async def wait(self) -> Any:
        return await self.driver.wait(Wait(queues=(self._name + "fetch",), timeout=0.0))


OPERATIONS = tuple(
    name for name in vars(Calls) if not name.startswith("_") and name != "prepare"
)  # fmt: skip
"""Every operation of the seam."""


async def insist(call: Callable[[], Awaitable[T]]) -> tuple[T, list[Exception]]:
    """Send the same call again until it is answered; the answer, and what came before it."""
    met: list[Exception] = []
    while True:
        try:
            return await call(), met
        except (DriverUnavailableError, OutcomeUnknownError) as exc:
            met.append(exc)
            await anyio.sleep(0.001)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> float:
    """Wait for something outside; returns the seconds that it took."""
    began = time.monotonic()
    with anyio.fail_after(seconds):
        while not await condition():
            await anyio.sleep(0.01)
    return time.monotonic() - began
