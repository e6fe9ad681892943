"""Waiting at PostgreSQL: told by other connections, or looking for oneself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import anyio
import pytest

from taskflow._core.records import Lane, Wait, Wake
from taskflow._core.states import Event
from taskflow.drivers.postgres import PostgresDriver, waits
from taskflow.errors import DriverError
from tests.drivers.postgres_kit import admin, claim_one, opened, schema_of, settle, spec, until
from tests.drivers.servers import PostgresServer

pytestmark = pytest.mark.anyio

POLL = waits.POLL


@pytest.fixture
async def here(postgres_server: PostgresServer) -> AsyncIterator[PostgresDriver]:
    async with opened(postgres_server) as driver:
        yield driver


@pytest.fixture
async def there(
    here: PostgresDriver, postgres_server: PostgresServer
) -> AsyncIterator[PostgresDriver]:
    async with opened(postgres_server, schema_of(here)) as driver:
        yield driver


class Waiting:
    """A wait in the background, once its driver listens."""

    def __init__(self, driver: PostgresDriver, request: Wait) -> None:
        self._driver, self._request = driver, request
        self.wake: Wake | None = None
        self.done = anyio.Event()

    async def run(self) -> None:
        self.wake = await self._driver.wait(self._request)
        self.done.set()


async def listening(server: PostgresServer) -> None:
    async with admin(server.url) as db:

        async def listens() -> bool:
            return bool(
                await db.value(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_notify($1, '''')%'"
                    " AND state = 'idle' AND application_name = 'taskflow'"
                )
            )

        await until(listens)


async def woken(
    server: PostgresServer, waiting: Waiting, act: Callable[..., Awaitable[object]], *args: object,
    **options: object,
) -> Wake:  # fmt: skip
    """What a wait says that only a notification can have ended."""
    async with anyio.create_task_group() as group:
        group.start_soon(waiting.run)
        await listening(server)
        assert not waiting.done.is_set()
        await act(*args, **options)
        with anyio.fail_after(5):
            await waiting.done.wait()
    assert waiting.wake is not None
    return waiting.wake


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "POLL", 60.0)


@pytest.mark.usefixtures("no_polls")
async def test_work_finals_and_cancels_wake_another_connection(
    postgres_server: PostgresServer, here: PostgresDriver, there: PostgresDriver,
) -> None:  # fmt: skip
    waiting = Waiting(here, Wait(queues=("default",), timeout=8))
    wake = await woken(postgres_server, waiting, there.enqueue, [spec("a")])
    assert wake.work
    job = await claim_one(there)

    waiting = Waiting(here, Wait(worker_id="worker", timeout=8))
    wake = await woken(postgres_server, waiting, there.cancel, ["a"])
    assert wake.cancels

    waiting = Waiting(here, Wait(ids=frozenset({"a"}), timeout=8))
    wake = await woken(postgres_server, waiting, settle, there, job, Event.COMPLETE)
    assert wake.finals == {"a"}


@pytest.mark.usefixtures("no_polls")
async def test_other_lanes_and_queues_wake_nobody(
    postgres_server: PostgresServer, here: PostgresDriver, there: PostgresDriver
) -> None:
    request = Wait(queues=("default",), lanes=frozenset({Lane.THREAD}), timeout=0.5)
    async with anyio.create_task_group() as group:
        waiting = Waiting(here, request)
        group.start_soon(waiting.run)
        await listening(postgres_server)
        await there.enqueue([spec("lane"), spec("queue", queue="other", lane=Lane.THREAD)])
    assert waiting.wake == Wake()


async def test_what_is_there_already_ends_a_wait_at_once(here: PostgresDriver) -> None:
    await here.enqueue([spec("a", queue="x"), spec("b", queue="y", delay=60)])
    request = Wait(queues=("default",), others=True, ids=frozenset({"a", "gone"}), timeout=8)
    wake = await here.wait(request)
    assert wake == Wake(work=True, finals=frozenset({"gone"}))
    await here.pause(["x"])
    assert await here.wait(Wait(others=True, timeout=0)) == Wake()


async def test_a_dead_listener_costs_one_look(
    postgres_server: PostgresServer, here: PostgresDriver, there: PostgresDriver
) -> None:
    async with admin(postgres_server.url) as db, anyio.create_task_group() as group:
        waiting = Waiting(here, Wait(queues=("default",), timeout=9))
        group.start_soon(waiting.run)
        await listening(postgres_server)
        await db.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'SELECT pg_notify($1, '''')%' AND application_name = 'taskflow'"
        )
        began = time.monotonic()
        await there.enqueue([spec("a")])
        with anyio.fail_after(5 * POLL):
            await waiting.done.wait()
    assert waiting.wake == Wake(work=True)
    assert time.monotonic() - began < 5 * POLL


async def test_without_notifications_waits_look_for_themselves(
    postgres_server: PostgresServer,
) -> None:
    async with opened(postgres_server, notify=False) as driver:
        async with anyio.create_task_group() as group:
            waiting = Waiting(driver, Wait(queues=("default",), timeout=9))
            group.start_soon(waiting.run)
            async with opened(postgres_server, schema_of(driver), notify=False) as there:
                await there.enqueue([spec("a")])
        assert waiting.wake == Wake(work=True)


@pytest.mark.usefixtures("no_polls")
async def test_many_jobs_make_few_notifications(
    postgres_server: PostgresServer, here: PostgresDriver, there: PostgresDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    heard: list[str] = []
    tell = waits.Waits.tell

    def note(self: waits.Waits, items: Iterable[str]) -> None:
        if self is here._opened.waits:
            heard.append(str(items))
        tell(self, items)

    monkeypatch.setattr(waits.Waits, "tell", note)
    async with anyio.create_task_group() as group:
        waiting = Waiting(here, Wait(queues=("last",), timeout=9))
        group.start_soon(waiting.run)
        await listening(postgres_server)
        began = time.monotonic()
        for n in range(100):
            await there.enqueue([spec(str(n))])
        await there.enqueue([spec("last", queue="last")])
        await waiting.done.wait()
    assert 1 <= len(heard) <= 3 + (time.monotonic() - began) / 0.05


async def test_a_close_ends_waits(here: PostgresDriver) -> None:
    async def wait() -> None:
        with pytest.raises(DriverError):
            await here.wait(Wait(queues=("default",), timeout=9))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.1)
        await here.aclose()
