"""What the tests of the PostgreSQL driver are made of."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg

from taskflow import App
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
from taskflow.drivers.postgres import PostgresDriver
from taskflow.drivers.postgres.pool import Connection, Server
from tests.drivers.servers import PostgresServer

_numbers = itertools.count()


class Shift:
    """Seconds by which the server's clock is shifted."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return self.offset


def new_schema() -> str:
    return f"t{next(_numbers)}"


@asynccontextmanager
async def opened(
    server: PostgresServer, schema: str | None = None, **options: Any
) -> AsyncIterator[PostgresDriver]:
    """An open driver on tables in a schema of its own, or on those of another driver."""
    table = f"{schema or new_schema()}.task_queue"
    driver = PostgresDriver(options.pop("url", server.url), queue_table=table, **options)
    if schema is None:
        await driver.migrate()
    await driver.open()
    try:
        yield driver
    finally:
        await driver.aclose()


@asynccontextmanager
async def opened_app(server: PostgresServer, **options: Any) -> AsyncIterator[App[None]]:
    """An open app on tables in a schema of its own."""
    driver = PostgresDriver(server.url, queue_table=f"{new_schema()}.task_queue", **options)
    await driver.migrate()
    async with App[None](driver=driver) as app:
        yield app


@asynccontextmanager
async def connected(server: PostgresServer, **options: Any) -> AsyncIterator[Any]:
    """A connection of the user's, as asyncpg makes it; on asyncio only."""
    connection = await asyncpg.connect(server.url, **options)
    try:
        yield connection
    finally:
        connection.terminate()


def schema_of(driver: PostgresDriver) -> str:
    return driver._names.schemas[0]


class Admin:
    """A superuser's connection, for callers on either loop."""

    def __init__(self, bridge: Bridge, connection: Connection) -> None:
        self._bridge, self._connection = bridge, connection

    async def rows(self, statement: str, *args: object) -> list[Any]:
        return list(await self._bridge.call(self._connection.fetch, statement, *args))

    async def value(self, statement: str, *args: object) -> Any:
        return (await self.rows(statement, *args))[0][0]

    async def run(self, statement: str) -> None:
        await self._bridge.call(self._connection.execute, statement)

    async def terminate_all(self) -> int:
        """End every connection of taskflow's."""
        rows = await self.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'taskflow'"
        )
        return len(rows)


@asynccontextmanager
async def admin(url: str) -> AsyncIterator[Admin]:
    bridge = Bridge("admin", timeout=60)
    await bridge.start()
    connection = None
    try:
        server = Server(dsn=url + "?application_name=admin", shown=url, statement_cache_size=0)
        connection = await bridge.call(server.connect)
        yield Admin(bridge, connection)
    finally:
        with anyio.CancelScope(shield=True):
            if connection is not None:
                await bridge.call(connection.close)
            await bridge.aclose()


def spec(job_id: str, **options: Any) -> JobSpec:
    return JobSpec(id=job_id, kind="Job", payload=bytes(range(256)), **options)


async def claim(
    driver: PostgresDriver,
    free: int = 10,
    *,
    ahead: int = 0,
    queues: tuple[str, ...] = ("default",),
    lanes: tuple[Lane, ...] = (Lane.ASYNC,),
    lease: float = 60,
    request_id: str | None = None,
    others: bool = False,
    worker_id: str = "worker",
) -> Claimed:
    return await driver.claim(
        Claim(
            queues=queues, rooms={lane: Room(free, ahead) for lane in lanes}, lease=lease,
            request_id=request_id or f"request-{next(_numbers)}", worker_id=worker_id,
            others=others,
        )
    )  # fmt: skip


async def claim_one(driver: PostgresDriver, **options: Any) -> Leased:
    (job,) = (await claim(driver, 1, **options)).jobs
    return job


async def settle(driver: PostgresDriver, job: Leased, event: Event, **how: Any) -> Settled:
    (reply,) = await driver.settle([Change(token=job.token, event=event, **how)])
    return reply


async def record(driver: PostgresDriver, job_id: str) -> JobRecord:
    (found,) = await driver.fetch([job_id])
    assert found is not None
    return found.record


def ids(claimed: Claimed) -> list[str]:
    return [job.token.id for job in claimed.jobs]


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 8) -> None:
    with anyio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110 - what it looks at is in a server
            await anyio.sleep(0.005)
