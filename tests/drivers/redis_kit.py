"""What the tests of the Redis driver are made of."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from taskflow._bridge import Bridge
from taskflow._core.records import (
    Change,
    Claim,
    Claimed,
    JobRecord,
    JobSpec,
    Lane,
    Leased,
    Room,
    Settled,
)
from taskflow._core.states import Event
from taskflow.drivers.redis import RedisDriver
from taskflow.drivers.redis.address import read_url
from taskflow.drivers.redis.server import Connection, Server, abort, ask
from tests.drivers.redis_server import RedisServer

_numbers = itertools.count()


def new_namespace() -> str:
    return f"t{next(_numbers)}"


@asynccontextmanager
async def opened(
    server: RedisServer, namespace: str | None = None, **options: Any
) -> AsyncIterator[RedisDriver]:
    """An open driver on a namespace of its own, or on that of another driver."""
    url = options.pop("url", server.url)
    driver = RedisDriver(url, namespace=namespace or new_namespace(), **options)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.aclose()


def namespace_of(driver: RedisDriver) -> str:
    return str(driver._options["namespace"])


class Admin:
    """A connection for commands of any kind, for callers on either loop."""

    def __init__(self, bridge: Bridge, connection: Connection) -> None:
        self._bridge, self._connection = bridge, connection

    async def ask(self, *words: str) -> Any:
        return await self._bridge.call(ask, self._connection, *words)

    async def keys(self, driver: RedisDriver) -> set[str]:
        """What the driver's namespace has in the store, by name."""
        found = await self.ask("KEYS", f"{{{namespace_of(driver)}}}*")
        return {key.decode().partition(":")[2] for key in found}

    async def clients(self) -> list[str]:
        """The ids of the connections of taskflow's."""
        lines = (await self.ask("CLIENT", "LIST")).decode().splitlines()
        clients = (dict(word.partition("=")[::2] for word in line.split()) for line in lines)
        return [one["id"] for one in clients if one["name"] == "taskflow"]


@asynccontextmanager
async def admin(url: str) -> AsyncIterator[Admin]:
    bridge = Bridge("admin", timeout=60)
    await bridge.start()
    connection = None
    try:
        connection = await bridge.call(Server(read_url(url)).connect)
        await bridge.call(ask, connection, "CLIENT", "SETNAME", "admin")
        yield Admin(bridge, connection)
    finally:
        with anyio.CancelScope(shield=True):
            if connection is not None:
                await bridge.call(_abort, connection)
            await bridge.aclose()


async def _abort(connection: Connection) -> None:
    abort(connection)


def spec(job_id: str, **options: Any) -> JobSpec:
    return JobSpec(id=job_id, kind="Job", payload=options.pop("payload", b"\x00\xff"), **options)


async def claim(
    driver: RedisDriver,
    free: int = 10,
    *,
    queues: tuple[str, ...] = ("default",),
    lease: float = 60,
    request_id: str | None = None,
    worker_id: str = "worker",
) -> Claimed:
    return await driver.claim(
        Claim(
            queues=queues, rooms={Lane.ASYNC: Room(free)}, lease=lease,
            request_id=request_id or f"request-{next(_numbers)}", worker_id=worker_id,
        )
    )  # fmt: skip


async def claim_one(driver: RedisDriver, **options: Any) -> Leased:
    (job,) = (await claim(driver, 1, **options)).jobs
    return job


async def settle(driver: RedisDriver, job: Leased, event: Event, **how: Any) -> Settled:
    (reply,) = await driver.settle([Change(token=job.token, event=event, **how)])
    return reply


async def record(driver: RedisDriver, job_id: str) -> JobRecord:
    (found,) = await driver.fetch([job_id])
    assert found is not None
    return found.record


def ids(claimed: Claimed) -> list[str]:
    return [job.token.id for job in claimed.jobs]
