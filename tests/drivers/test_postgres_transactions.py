"""Dispatching within a transaction of the caller's: asyncpg connections."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from taskflow import App, AsyncTask, Conflict, JobState, Unique, task
from taskflow._core.flows import Edge
from taskflow._core.records import Accepted
from taskflow._core.states import Event
from taskflow.abc import Driver
from taskflow.drivers.memory import MemoryDriver
from taskflow.drivers.postgres import PostgresDriver
from taskflow.drivers.redis import RedisDriver
from taskflow.drivers.sqlite import SqliteDriver
from taskflow.errors import (
    ConfigError,
    DriverUnavailableError,
    JobConflictError,
    JobNotFoundError,
    OutcomeUnknownError,
    SchemaMismatchError,
    StoreRefusedError,
    UnsupportedError,
    UsageError,
)
from tests.drivers.postgres_kit import claim_one, connected, opened_app, settle, spec, until
from tests.drivers.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def anyio_backend() -> str:
    """The only loop that asyncpg has connections on."""
    return "asyncio"


ROOT = Path(__file__).parents[2]


class Mail(AsyncTask[str]):
    kind = "transactions.Mail"
    to: str

    async def execute(self) -> str:
        return self.to


@task(kind="transactions.shout")
async def shout(word: str) -> str:
    return word.upper()


class Broken(Exception):
    """What the user's code raises."""


@pytest.fixture
async def app(postgres_server: PostgresServer) -> AsyncIterator[App[None]]:
    async with opened_app(postgres_server) as app:
        yield app


@pytest.fixture
async def conn(postgres_server: PostgresServer) -> AsyncIterator[Any]:
    """A connection of the user's, beside a table of the user's."""
    async with connected(postgres_server) as connection:
        await connection.execute("CREATE TEMPORARY TABLE orders (id integer PRIMARY KEY)")
        yield connection


async def ids(app: App[Any]) -> list[str]:
    """The jobs that others see."""
    return sorted(record.id for record in (await app.jobs()).jobs)


# ---- with the commit, and not without


async def test_a_job_is_there_if_and_when_the_transaction_is_committed(
    app: App[None], conn: Any
) -> None:
    async with conn.transaction():
        await conn.execute("INSERT INTO orders VALUES (1)")
        job = await Mail(to="a").dispatch(connection=conn)
        await shout("b").options(id="b").dispatch(app=app, connection=conn)
        assert await ids(app) == []
        with pytest.raises(JobNotFoundError):
            await job.record()
    assert await ids(app) == sorted(["b", job.id])
    assert (await job.record()).state is JobState.AVAILABLE


async def test_a_rollback_takes_the_job_along(app: App[None], conn: Any) -> None:
    with pytest.raises(Broken):
        async with conn.transaction():
            await Mail(to="a").dispatch(connection=conn)
            raise Broken
    transaction = conn.transaction()
    await transaction.start()
    await Mail(to="a").options(id="first").dispatch(connection=conn)
    await transaction.rollback()
    assert await ids(app) == []
    await Mail(to="other").options(id="first").dispatch(connection=conn)
    assert await ids(app) == ["first"]


async def test_an_error_in_the_middle_takes_everything_along(app: App[None], conn: Any) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with conn.transaction():
            await Mail(to="a").dispatch(connection=conn)
            await conn.execute("INSERT INTO orders VALUES (1), (1)")
    assert await ids(app) == []


async def test_many_jobs_join_in_order(app: App[None], conn: Any) -> None:
    tasks = [Mail(to=str(n)).options(id=f"{n:04}") for n in range(1203)]
    with pytest.raises(Broken):
        async with conn.transaction():
            await app.dispatch_many(tasks, connection=conn)
            raise Broken
    assert await app.job("0000") is None
    async with conn.transaction():
        jobs = await app.dispatch_many(tasks, connection=conn)
        assert await app.dispatch_many([], connection=conn) == []
        assert await app.job("0000") is None
    assert [job.id for job in jobs] == [f"{n:04}" for n in range(1203)]
    assert sum(queue.counts[JobState.AVAILABLE] for queue in await app.stats()) == 1203


async def test_a_savepoint_that_is_rolled_back_takes_its_jobs_along(
    app: App[None], conn: Any
) -> None:
    async with conn.transaction():
        await Mail(to="a").options(id="outer").dispatch(connection=conn)
        with pytest.raises(Broken):
            async with conn.transaction():
                await Mail(to="b").options(id="inner").dispatch(connection=conn)
                raise Broken
        async with conn.transaction():
            await Mail(to="c").options(id="kept").dispatch(connection=conn)
    assert await ids(app) == ["kept", "outer"]


async def test_without_a_transaction_a_job_is_stored_at_once(app: App[None], conn: Any) -> None:
    await Mail(to="a").options(id="a").dispatch(connection=conn)
    assert await ids(app) == ["a"]


async def test_cut_anywhere_there_is_the_job_and_the_row_or_neither(
    app: App[None], conn: Any, postgres_server: PostgresServer
) -> None:
    await conn.execute("DROP TABLE IF EXISTS cut_orders; CREATE TABLE cut_orders (id integer)")
    async with asyncpg.create_pool(postgres_server.url, min_size=1, max_size=1) as pool:
        for n in range(40):
            async with pool.acquire() as proxy:  # whose reset ends a BEGIN that was cut, too
                with suppress(TimeoutError):
                    async with asyncio.timeout(n * 0.0004), proxy.transaction():
                        await Mail(to="a").options(id=f"{n}").dispatch(connection=proxy)
                        await proxy.execute("INSERT INTO cut_orders VALUES ($1)", n)
    rows = {str(row[0]) for row in await conn.fetch("SELECT id FROM cut_orders")}
    stored = await app.port.fetch([f"{n}" for n in range(40)])
    assert rows == {one.record.id for one in stored if one is not None}


# ---- the same answers


async def test_answers_are_those_of_an_enqueue(app: App[None], conn: Any) -> None:
    await Mail(to="a").options(id="before").dispatch()
    async with conn.transaction():
        for name in ("before", "within", "within"):
            job = await Mail(to="a").options(id=name).dispatch(connection=conn)
            assert job.id == name
        for name in ("before", "within"):
            with pytest.raises(JobConflictError, match=f"'{name}'"):
                await Mail(to="other").options(id=name).dispatch(connection=conn)
        jobs = [Mail(to="a").options(id=name) for name in ("new", "before", "new")]
        assert [job.id for job in await app.dispatch_many(jobs, connection=conn)] == [
            "new", "before", "new",
        ]  # fmt: skip
        with pytest.raises(JobConflictError, match="'before'"):
            await app.dispatch_many(
                [Mail(to="a").options(id="beside"), Mail(to="b").options(id="before")],
                connection=conn,
            )
    assert await ids(app) == ["before", "beside", "new", "within"]


async def test_a_unique_key_is_kept_within_and_without(app: App[None], conn: Any) -> None:
    key = Mail(to="a").options(unique="key")
    held = await key.dispatch()
    async with conn.transaction():
        assert (await key.dispatch(connection=conn)).id == held.id
        with pytest.raises(JobConflictError, match=held.id):
            await (
                Mail(to="a")
                .options(unique=Unique("key", on_conflict=Conflict.RAISE))
                .dispatch(connection=conn)
            )
        new = Unique("key", on_conflict=Conflict.REPLACE)
        job = await Mail(to="b").options(unique=new).dispatch(connection=conn)
        assert (await held.record()).state is JobState.AVAILABLE
        other = await Mail(to="a").options(unique="other").dispatch(connection=conn)
        assert (await Mail(to="a").options(unique="other").dispatch(connection=conn)).id == other.id
    record = await held.record()
    assert (record.state, record.reason) == (JobState.CANCELLED, "replaced")
    assert (await key.dispatch()).id == job.id


async def test_what_follows_others_joins_together_with_them(app: App[None], conn: Any) -> None:
    driver = app.port.driver
    assert await driver.enqueue_on(conn, []) == []
    follows = spec("b", after=(Edge("a"),))
    async with conn.transaction():
        with pytest.raises(ConfigError, match="after = 'a'.*in the same call"):
            await driver.enqueue_on(conn, [follows])
        replies = await driver.enqueue_on(conn, [spec("a"), follows])
    assert [reply.verdict for reply in replies] == [Accepted.ACCEPTED] * 2
    assert {job.id: job.state for job in (await app.jobs()).jobs} == {
        "a": JobState.AVAILABLE, "b": JobState.WAITING,
    }  # fmt: skip


# ---- connections of every kind


async def test_a_pools_proxy_will_do_until_it_is_given_back(
    app: App[None], postgres_server: PostgresServer
) -> None:
    async with asyncpg.create_pool(postgres_server.url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as proxy:
            with pytest.raises(Broken):
                async with proxy.transaction():
                    await Mail(to="a").dispatch(connection=proxy)
                    raise Broken
            async with proxy.transaction():
                await Mail(to="a").options(id="a").dispatch(connection=proxy)
        with pytest.raises(UsageError, match="released back to the pool"):
            await Mail(to="a").dispatch(connection=proxy)
    assert await ids(app) == ["a"]


async def test_the_connections_own_ways_do_not_matter(
    app: App[None], postgres_server: PostgresServer
) -> None:
    class Row(asyncpg.Record):  # type: ignore[misc]
        """A record class of the user's."""

    settings = {"search_path": "pg_temp", "lock_timeout": "3000", "DateStyle": "German",
                "bytea_output": "escape", "default_transaction_isolation": "serializable"}  # fmt: skip
    async with connected(
        postgres_server, statement_cache_size=0, server_settings=settings, record_class=Row
    ) as conn:
        await conn.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads
        )
        await conn.execute("CREATE TABLE task_queue_enqueue_on (id integer)")
        async with conn.transaction():
            for name in ("a", "b"):
                await Mail(to="\x01ä").options(id=name, tags={"ü": "1"}).dispatch(connection=conn)
            assert await conn.fetchval("SHOW lock_timeout") == "3s"
            assert await conn.fetchval("SHOW search_path") == "pg_temp"
        assert await conn.fetchval("SHOW lock_timeout") == "3s"
        assert await conn.fetchval("SHOW enable_seqscan") == "on"
    assert await ids(app) == ["a", "b"]


async def test_a_closed_connection_is_named(
    app: App[None], postgres_server: PostgresServer
) -> None:
    async with connected(postgres_server) as conn:
        await conn.close()
        with pytest.raises(DriverUnavailableError, match="the connection is closed"):
            await Mail(to="a").dispatch(connection=conn)


async def test_a_connection_that_breaks_has_stored_nothing(
    app: App[None], conn: Any, postgres_server: PostgresServer
) -> None:
    transaction = conn.transaction()
    await transaction.start()
    await Mail(to="a").dispatch(connection=conn)
    pid = conn.get_server_pid()
    async with connected(postgres_server) as other:
        await other.execute("SELECT pg_terminate_backend($1)", pid)

        async def gone() -> bool:
            return not await other.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid
            )

        await until(gone)
    with pytest.raises((DriverUnavailableError, OutcomeUnknownError)):
        await Mail(to="a").dispatch(connection=conn)
    assert await ids(app) == []


async def test_a_busy_connection_is_named(app: App[None], conn: Any) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(conn.execute, "SELECT pg_sleep(0.5)")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(UsageError, match="another operation is in progress"):
            await Mail(to="a").dispatch(connection=conn)


@pytest.mark.parametrize("wrong", ["postgresql://here", object(), 5])
async def test_another_object_is_named(app: App[None], wrong: object) -> None:
    message = f"{type(wrong).__name__} will not do: give an asyncpg connection, or SQLAlchemy's"
    with pytest.raises(ConfigError, match=message):
        await Mail(to="a").dispatch(connection=wrong)
    with pytest.raises(ConfigError, match=message):
        await app.dispatch_many([Mail(to="a")], connection=wrong)


async def test_a_transaction_that_is_lost_or_only_reads_is_named(app: App[None], conn: Any) -> None:
    transaction = conn.transaction()
    await transaction.start()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await conn.execute("SELECT 1 / 0")
    with pytest.raises(StoreRefusedError, match="current transaction is aborted"):
        await Mail(to="a").dispatch(connection=conn)
    await transaction.rollback()
    async with conn.transaction(readonly=True):
        with pytest.raises(StoreRefusedError, match="read-only transaction"):
            await Mail(to="a").dispatch(connection=conn)


async def test_another_database_is_named(app: App[None], postgres_server: PostgresServer) -> None:
    url = postgres_server.url.removesuffix("postgres") + "template1"
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(SchemaMismatchError, match=r"connect to postgresql://.*/postgres"):
            await Mail(to="a").dispatch(connection=connection)
    finally:
        await connection.close()


# ---- isolation


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_an_old_snapshot_does_not_bring_back_what_has_ended(
    app: App[None], conn: Any, isolation: str
) -> None:
    driver = app.port.driver
    assert isinstance(driver, PostgresDriver)
    async with conn.transaction(isolation=isolation):
        await conn.fetch("SELECT * FROM orders")
        await app.dispatch_many([Mail(to="a").options(id=name) for name in ("a", "b", "c")])
        await settle(driver, await claim_one(driver), Event.COMPLETE)
        await settle(driver, await claim_one(driver), Event.FAIL)
        await Mail(to="new").options(id="new").dispatch(connection=conn)
        for name in ("a", "b", "c"):
            with pytest.raises(DriverUnavailableError, match="begin again"):
                async with conn.transaction():
                    await Mail(to="a").options(id=name).dispatch(connection=conn)
        await app.dispatch_many([Mail(to="1"), Mail(to="2")], connection=conn)
        with pytest.raises(StoreRefusedError, match="use READ COMMITTED"):
            async with conn.transaction():
                await Mail(to="a").options(unique="key").dispatch(connection=conn)
    assert len(await ids(app)) == 6


# ---- the page


@pytest.mark.slow("three processes")
async def test_the_page_runs_as_it_is(
    app: App[None], postgres_server: PostgresServer, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "howto" / "transactions.md").read_text(encoding="utf-8")
    (tmp_path / "shop.py").write_text(page.split("```python\n")[1].partition("```")[0])
    driver = app.port.driver
    assert isinstance(driver, PostgresDriver)
    environment = {
        **os.environ, "TASKFLOW_URL": postgres_server.url,
        "TASKFLOW_POSTGRES_QUEUE_TABLE": driver._names.store, "PYTHONPATH": str(tmp_path),
    }  # fmt: skip
    for command in (["-m", "taskflow", "migrate", "shop:app"], ["shop.py"], ["shop.py"]):
        await anyio.run_process(
            [sys.executable, *command], cwd=tmp_path, env=environment, stderr=None
        )
    assert [(job.kind, job.state) for job in (await app.jobs()).jobs] == [
        ("SendReceipt", JobState.AVAILABLE)
    ] * 2


# ---- who has no such thing


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_is_told_where_it_works(postgres_server: PostgresServer) -> None:
    async with opened_app(postgres_server) as app:
        with pytest.raises(UnsupportedError, match="on trio: asyncpg has connections on asyncio"):
            await Mail(to="a").dispatch(connection=object())
        assert await ids(app) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_other_drivers_refuse_and_store_nothing() -> None:
    message = "the memory driver does not support transactions: use another driver"
    async with App("memory://") as app:
        with pytest.raises(UnsupportedError, match=message):
            await Mail(to="a").dispatch(connection=object())
        with pytest.raises(UnsupportedError, match=message):
            await app.dispatch_many([Mail(to="a")], connection=object())
        assert await ids(app) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "driver",
    [MemoryDriver(), SqliteDriver("jobs.db"), RedisDriver("redis://localhost")],
    ids=lambda driver: driver.name,
)
async def test_drivers_refuse_by_the_seams_own_word(driver: Driver) -> None:
    with pytest.raises(UnsupportedError, match=f"the {driver.name} driver does not support"):
        await driver.enqueue_on(object(), [spec("a")])
