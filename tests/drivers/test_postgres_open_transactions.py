"""What a transaction of the caller's holds while it is open, and what wakes at its commit."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from taskflow import App, AsyncTask, Conflict, JobState, Unique, Worker
from taskflow._core.records import Renewal
from taskflow._core.states import Event
from taskflow.drivers.postgres import PostgresDriver, waits
from taskflow.errors import OutcomeUnknownError, StoreBusyError
from tests.drivers.postgres_kit import (
    claim_one,
    connected,
    opened_app,
    settle,
    until,
)
from tests.drivers.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

SOON = 8.0
"""Seconds that a call may take which waits for nobody; all of them together."""


@pytest.fixture
def anyio_backend() -> str:
    """The only loop that asyncpg has connections on."""
    return "asyncio"


class Mail(AsyncTask[str]):
    kind = "open_transactions.Mail"
    to: str = ""

    async def execute(self) -> str:
        return self.to


@pytest.fixture
async def app(postgres_server: PostgresServer) -> AsyncIterator[App[None]]:
    async with opened_app(postgres_server) as app:
        yield app


@pytest.fixture
async def conn(postgres_server: PostgresServer) -> AsyncIterator[Any]:
    async with connected(postgres_server) as connection:
        yield connection


def driver_of(app: App[Any]) -> PostgresDriver:
    driver = app.port.driver
    assert isinstance(driver, PostgresDriver)
    return driver


async def state(app: App[Any], job_id: str) -> JobState:
    record = await app.job(job_id)
    assert record is not None
    return record.state


# ---- what goes on


async def test_others_store_claim_renew_and_settle_meanwhile(app: App[None], conn: Any) -> None:
    driver = driver_of(app)
    await Mail().options(id="before").dispatch()
    async with conn.transaction():
        await Mail().options(id="held").dispatch(connection=conn)
        await Mail().options(id="key", unique="key").dispatch(connection=conn)
        with anyio.fail_after(SOON):
            await Mail().options(id="after").dispatch()
            await Mail().options(id="other key", unique="other").dispatch()
            await app.dispatch_many([Mail(), Mail()])
            for expected in ("before", "after"):
                job = await claim_one(driver)
                assert job.token.id == expected
                await driver.extend([Renewal(job.token)], 60)
                await settle(driver, job, Event.COMPLETE)
            await driver.expire(100)
            await app.stats()
            await app.cancel("other key")
            await app.retry("other key")
            await driver.prune(100, 0)
        assert await app.job("held") is None
    assert await state(app, "held") is JobState.AVAILABLE


async def test_who_was_found_to_hold_a_key_goes_on_running(app: App[None], conn: Any) -> None:
    """A transaction that met a running job does not keep its lease from being renewed."""
    driver = driver_of(app)
    await Mail().options(id="holder", unique="key").dispatch()
    job = await claim_one(driver)
    key = {one: Mail().options(unique=Unique("key", on_conflict=one)) for one in Conflict}
    async with conn.transaction():
        for conflict in (Conflict.KEEP, Conflict.RAISE, Conflict.REPLACE):
            await _ignored(key[conflict].dispatch(connection=conn))
        with anyio.fail_after(SOON):
            await driver.extend([Renewal(job.token)], 60)
            await settle(driver, job, Event.COMPLETE)
    assert await state(app, "holder") is JobState.COMPLETED


async def _ignored(call: Awaitable[object]) -> None:
    try:
        await call
    except Exception as exc:
        assert "it holds the unique key" in str(exc)


async def test_what_is_replaced_is_not_handed_out_and_keeps_nobody_waiting(
    app: App[None], conn: Any
) -> None:
    driver = driver_of(app)
    await Mail().options(id="old", unique="key").dispatch()
    await Mail().options(id="beside").dispatch()
    async with conn.transaction():
        new = Mail().options(id="new", unique=Unique("key", on_conflict=Conflict.REPLACE))
        await new.dispatch(connection=conn)
        with anyio.fail_after(SOON):
            assert (await claim_one(driver)).token.id == "beside"
            assert await state(app, "old") is JobState.AVAILABLE
    assert await state(app, "old") is JobState.CANCELLED
    assert (await claim_one(driver)).token.id == "new"


async def test_only_who_asks_for_the_same_waits_for_the_end(app: App[None], conn: Any) -> None:
    done: list[str] = []

    async def dispatch(job_id: str, key: str | None = None) -> None:
        done.append((await Mail().options(id=job_id, unique=key).dispatch()).id)

    transaction = conn.transaction()
    await transaction.start()
    await Mail().options(id="holder", unique="key").dispatch(connection=conn)
    await Mail().options(id="plain").dispatch(connection=conn)
    async with anyio.create_task_group() as group:
        group.start_soon(dispatch, "asks for the key", "key")
        group.start_soon(dispatch, "plain")
        with anyio.fail_after(2 * SOON):
            async with anyio.create_task_group() as others:
                for n in range(20):
                    others.start_soon(dispatch, str(n))
                    others.start_soon(dispatch, f"with key {n}", f"key {n}")
        assert len(done) == 40
        await transaction.commit()
    assert sorted(done[40:]) == ["holder", "plain"]


async def test_who_asks_for_the_same_has_it_after_a_rollback(app: App[None], conn: Any) -> None:
    transaction = conn.transaction()
    await transaction.start()
    await app.dispatch_many([Mail().options(id="a", unique="key")], connection=conn)
    async with anyio.create_task_group() as group:
        tasks = [Mail().options(id="b", unique="key"), Mail()._prepared()]
        group.start_soon(functools.partial(app.dispatch_many, tasks))
        await anyio.sleep(0.3)
        await transaction.rollback()
    assert await state(app, "b") is JobState.AVAILABLE


async def test_waiting_ends_with_the_deadline(postgres_server: PostgresServer, conn: Any) -> None:
    async with opened_app(postgres_server, call_timeout=5) as app:
        app.port._call_timeout = 1.5
        async with conn.transaction():
            await Mail().options(unique="key").dispatch(connection=conn)
            with pytest.raises(StoreBusyError, match="somebody's open transaction holds"):
                await Mail().options(unique="key").dispatch()


async def test_two_transactions_wait_by_the_callers_own_settings(
    app: App[None], conn: Any, postgres_server: PostgresServer
) -> None:
    key = Mail().options(unique="key")
    async with connected(postgres_server, server_settings={"lock_timeout": "100"}) as other:
        async with conn.transaction():
            await key.dispatch(connection=conn)
            with pytest.raises(StoreBusyError, match="roll it back and begin again"):
                async with other.transaction():
                    await key.dispatch(connection=other)
            app.port._call_timeout = 0.3
            await other.execute("SET lock_timeout = 0")
            with pytest.raises(OutcomeUnknownError, match="no answer in 0.3 s"):
                async with other.transaction():
                    await key.dispatch(connection=other)
            app.port._call_timeout = 30
        async with other.transaction():
            holder = await key.dispatch(connection=other)
    assert [job.id for job in (await app.jobs()).jobs] == [holder.id]


# ---- news


async def worked(app: App[Any], act: Callable[[], Awaitable[object]]) -> None:
    """Act while a worker waits that would look for itself only a minute later."""
    async with anyio.create_task_group() as group:
        worker = Worker(app, concurrency=2)
        await group.start(worker.run)
        await act()
        worker.stop()


async def test_a_worker_starts_a_job_soon_after_the_commit_and_never_before(
    app: App[None], conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "POLL", 60.0)

    async def act() -> None:
        await Mail(to="warm").dispatch()
        async with conn.transaction():
            job = await Mail(to="a").dispatch(connection=conn)
            await (await Mail(to="b").dispatch()).result(timeout=SOON)
            await conn.execute("SELECT pg_sleep(0.3)")
            assert await app.job(job.id) is None
            before = await conn.fetchval("SELECT clock_timestamp()")
        assert await job.result(timeout=20) == "a"
        record = await job.record()
        assert record.started_at is not None
        assert record.started_at >= before
        assert record.dispatched_at < before

    await worked(app, act)


async def test_a_rollback_wakes_nobody_and_silences_nothing(
    app: App[None], conn: Any, postgres_server: PostgresServer
) -> None:
    heard: list[str] = []

    async def are_heard() -> bool:
        return {"default", "kept"} <= {news.rpartition("\x1f")[2] for news in heard}

    async with connected(postgres_server) as listener:
        await listener.add_listener(
            driver_of(app)._names.channel, lambda *news: heard.append(news[3])
        )
        for queue in ("default", "kept", "lost"):
            transaction = conn.transaction()
            await transaction.start()
            await Mail().on_queue(queue).dispatch(connection=conn)
            await transaction.rollback()
        await Mail().dispatch()
        async with conn.transaction():
            await Mail().on_queue("kept").dispatch(connection=conn)
        await until(are_heard)
    assert not any("lost" in news for news in heard)


async def test_one_transaction_says_each_thing_once(
    app: App[None], conn: Any, postgres_server: PostgresServer
) -> None:
    channel = driver_of(app)._names.channel
    heard: list[str] = []
    async with connected(postgres_server) as listener:
        await listener.add_listener(channel, lambda *news: heard.append(news[3]))
        async with conn.transaction():
            for _ in range(30):
                await Mail().dispatch(connection=conn)
            await Mail().options(id="held", unique="key").dispatch(connection=conn)
            await app.dispatch_many([Mail().on_queue(f"q{n:0100}") for n in range(90)],
                                    connection=conn)  # fmt: skip
            await conn.execute("SELECT pg_notify($1, 'end')", channel)
        async with conn.transaction():
            await Mail().options(unique="key").dispatch(connection=conn)
            await conn.execute("SELECT pg_notify($1, 'end too')", channel)

        async def has_ended() -> bool:
            return "end too" in heard

        await until(has_ended)
    assert heard[1:] == ["*", "end", "end too"]  # after the one of 31 jobs


async def test_without_notifications_nothing_is_sent(
    postgres_server: PostgresServer, conn: Any
) -> None:
    async with (
        opened_app(postgres_server, notify=False) as app,
        connected(postgres_server) as listener,
    ):
        channel = driver_of(app)._names.channel
        heard: list[str] = []
        await listener.add_listener(channel, lambda *news: heard.append(news[3]))
        async with conn.transaction():
            await Mail().options(id="a").dispatch(connection=conn)
        await conn.execute("SELECT pg_notify($1, 'end')", channel)

        async def has_ended() -> bool:
            return bool(heard)

        await until(has_ended)
        assert heard == ["end"]
        assert await state(app, "a") is JobState.AVAILABLE


# ---- time


async def test_delays_count_from_the_dispatch_by_the_stores_clock(
    app: App[None], conn: Any
) -> None:
    async with conn.transaction():
        await conn.fetchval("SELECT pg_sleep(0.5)")
        began = await conn.fetchval("SELECT clock_timestamp()")
        first = await Mail().delay(60).dispatch(connection=conn)
        second = await Mail().dispatch(connection=conn)
        ended = await conn.fetchval("SELECT clock_timestamp()")
        assert (ended - await conn.fetchval("SELECT now()")).total_seconds() > 0.5
        await conn.fetchval("SELECT pg_sleep(0.2)")
    record = await first.record()
    assert began <= record.dispatched_at <= ended
    assert (record.due_at - record.dispatched_at).total_seconds() == 60
    assert record.state is JobState.SCHEDULED
    assert record.dispatched_at < (await second.record()).dispatched_at <= ended


async def test_a_delay_that_is_over_at_the_commit_is_no_delay(
    app: App[None], conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "POLL", 60.0)

    async def act() -> None:
        began = time.monotonic()
        async with conn.transaction():
            job = await Mail(to="a").delay(0.3).dispatch(connection=conn)
            await conn.execute("SELECT pg_sleep(0.6)")
        assert await job.result(timeout=20) == "a"
        assert time.monotonic() - began >= 0.6

    await worked(app, act)
