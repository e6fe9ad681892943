"""Connections to Redis that break, callers that go, servers that die, and waiting."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio
import pytest

from taskflow._core.records import (
    Accepted,
    Cancelled,
    Change,
    Extended,
    Lane,
    Renewal,
    Token,
    Verdict,
    Wait,
    Wake,
)
from taskflow._core.states import Event
from taskflow.drivers.redis import RedisDriver, waits
from taskflow.errors import DriverError, DriverUnavailableError, OutcomeUnknownError
from tests.drivers.redis_kit import (
    Admin,
    admin,
    claim,
    claim_one,
    ids,
    namespace_of,
    opened,
    settle,
    spec,
)
from tests.drivers.redis_server import RedisServer, redis_running

pytestmark = pytest.mark.anyio

T = TypeVar("T")
POLL = waits.POLL
STALE = Token("nobody", 1, "r")


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Send the same call again until it is answered."""
    while True:
        try:
            return await call()
        except (DriverUnavailableError, OutcomeUnknownError):
            await anyio.sleep(0.001)


async def enqueue_and_work(driver: RedisDriver, done: list[str], count: int = 60) -> None:
    for n in range(count):
        (reply,) = await insist(lambda n=n: driver.enqueue([spec(str(n))]))  # type: ignore[misc]
        assert reply.verdict in {Accepted.ACCEPTED, Accepted.DUPLICATE}
        claimed = await insist(lambda n=n: claim(driver, request_id=f"r{n}"))  # type: ignore[misc]
        for job in claimed.jobs:
            end = await insist(lambda job=job: settle(driver, job, Event.COMPLETE))  # type: ignore[misc]
            assert end.verdict in {Verdict.APPLIED, Verdict.ALREADY}
            done.append(job.token.id)


@pytest.mark.slow("a new connection for every other call")
@pytest.mark.timeout(60)
async def test_every_connection_is_killed_again_and_again(redis_server: RedisServer) -> None:
    """Nothing is lost and nothing is there twice."""
    done, killed = list[str](), 0
    async with (
        opened(redis_server) as driver, admin(redis_server.url) as db,
        anyio.create_task_group() as group,
    ):  # fmt: skip
        group.start_soon(enqueue_and_work, driver, done)
        with anyio.fail_after(50):
            while len(done) < 58:
                for client in await db.clients():
                    killed += await db.ask("CLIENT", "KILL", "ID", client)
                seen = len(done)
                await anyio.sleep(seen % 7 * 0.001)  # at another point each time
                while len(done) == seen < 60:
                    await anyio.sleep(0.0005)
    assert killed > 3
    assert done == [str(n) for n in range(60)]


@pytest.mark.slow("a server dies three times and comes back")
@pytest.mark.timeout(90)
async def test_a_server_that_dies_and_comes_back_loses_nothing() -> None:
    done = list[str]()
    with redis_running(appendonly="yes", appendfsync="always") as server:
        async with opened(server) as driver, anyio.create_task_group() as group:
            group.start_soon(enqueue_and_work, driver, done, 200)
            with anyio.fail_after(80):
                for least in (20, 60, 120):
                    while len(done) < least:
                        await anyio.sleep(0.001)
                    await anyio.to_thread.run_sync(server.stop, signal.SIGKILL)
                    await anyio.to_thread.run_sync(server.start)
    assert done == [str(n) for n in range(200)]


# ---- callers that go


@pytest.mark.slow("a call is cut at some hundred points")
@pytest.mark.timeout(60)
async def test_a_cancelled_call_leaves_the_next_answer_right(redis_server: RedisServer) -> None:
    """Whatever is cut wherever: applied as a whole or not at all, and nobody gets its answer."""
    async with opened(redis_server, max_connections=2) as driver:
        await driver.enqueue([spec("held", max_attempts=9)])
        held = (await claim_one(driver)).token
        cut = 0
        for n in range(90):
            calls: list[Callable[[], Awaitable[object]]] = [
                partial(driver.enqueue, [spec(str(n))]),
                partial(claim, driver, 1, request_id=f"r{n}", queues=("empty",)),
                lambda: driver.extend([Renewal(held)], 60),
                lambda: driver.settle([Change(token=STALE, event=Event.FAIL)]),
                lambda: driver.fetch(["held"]), driver.stats, lambda: driver.expire(1),
                lambda: driver.cancel(["nobody"]), lambda: driver.wait(Wait(timeout=0.0)),
            ]  # fmt: skip
            with anyio.move_on_after((n // 9) * 0.0002) as scope:
                await calls[n % 9]()
            cut += scope.cancelled_caught
            assert await driver.cancel(["nobody"]) == [Cancelled.UNKNOWN]
            assert await driver.extend([Renewal(held)], 60) == [Extended.RENEWED]
            (reply,) = await driver.enqueue([spec(f"after {n}")])
            assert (reply.verdict, reply.id) == (Accepted.ACCEPTED, f"after {n}")
        assert cut > 5
        names = [str(n) for n in range(0, 90, 9)] + [f"after {n}" for n in range(90)]
        stored = [one for one in await driver.fetch(names) if one is not None]
        assert len(stored) >= 90
        assert len(ids(await claim(driver, 500))) == len(stored)


async def test_a_silent_server_is_given_up_and_the_connection_with_it(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server, call_timeout=1) as driver, admin(redis_server.url) as db:
        await driver.enqueue([spec("a")])
        await db.ask("CLIENT", "PAUSE", "2500", "WRITE")
        began = time.monotonic()
        with pytest.raises(OutcomeUnknownError, match="no answer in time"):
            await driver.enqueue([spec("b")])
        assert 0.9 < time.monotonic() - began < 5
        await db.ask("CLIENT", "UNPAUSE")
        (reply,) = await driver.enqueue([spec("b")])
        assert reply.id == "b"


async def test_more_callers_than_connections(redis_server: RedisServer) -> None:
    async with admin(redis_server.url) as db, opened(redis_server, max_connections=2) as driver:
        others = len(await db.clients())
        async with anyio.create_task_group() as group:
            for n in range(50):
                group.start_soon(driver.enqueue, [spec(str(n))])
        assert len(await db.clients()) <= others + 1  # one is open since the driver is
        assert len(ids(await claim(driver, 100))) == 50


async def test_a_twin_has_connections_of_its_own(redis_server: RedisServer) -> None:
    async with opened(redis_server) as driver:
        twin = driver.twin()
        await twin.open()
        await driver.enqueue([spec("a")])
        assert ids(await claim(twin)) == ["a"]
        await twin.aclose()
        with pytest.raises(DriverUnavailableError, match="closed"):
            await claim(twin)
        assert ids(await claim(driver)) == []


# ---- waiting


@pytest.fixture
async def here(redis_server: RedisServer) -> AsyncIterator[RedisDriver]:
    async with opened(redis_server) as driver:
        yield driver


@pytest.fixture
async def there(here: RedisDriver, redis_server: RedisServer) -> AsyncIterator[RedisDriver]:
    async with opened(redis_server, namespace_of(here)) as driver:
        yield driver


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "POLL", 60.0)


class Waiting:
    """A wait in the background, once its driver listens."""

    def __init__(self, driver: RedisDriver, request: Wait) -> None:
        self._driver, self._request = driver, request
        self.wake: Wake | None = None
        self.done = anyio.Event()

    async def run(self) -> None:
        self.wake = await self._driver.wait(self._request)
        self.done.set()


async def listening(db: Admin, driver: RedisDriver) -> None:
    """Until a connection has subscribed for this namespace."""
    channel = f"{{{namespace_of(driver)}}}:work"
    with anyio.fail_after(8):
        while (await db.ask("PUBSUB", "NUMSUB", channel))[1] == 0:
            await anyio.sleep(0.005)


async def woken(
    server: RedisServer, driver: RedisDriver, request: Wait,
    act: Callable[[], Awaitable[object]],
) -> Wake:  # fmt: skip
    """What a wait says that only news can have ended."""
    waiting = Waiting(driver, request)
    async with admin(server.url) as db, anyio.create_task_group() as group:
        group.start_soon(waiting.run)
        await listening(db, driver)
        await anyio.sleep(0.02)
        assert not waiting.done.is_set()
        await act()
        with anyio.fail_after(5):
            await waiting.done.wait()
    assert waiting.wake is not None
    return waiting.wake


@pytest.mark.usefixtures("no_polls")
async def test_work_finals_and_cancels_wake_another_connection(
    redis_server: RedisServer, here: RedisDriver, there: RedisDriver
) -> None:
    request = Wait(queues=("default",), timeout=8)
    wake = await woken(redis_server, here, request, lambda: there.enqueue([spec("a")]))
    assert wake.work
    job = await claim_one(there)
    request = Wait(worker_id="worker", timeout=8)
    assert (await woken(redis_server, here, request, lambda: there.cancel(["a"]))).cancels
    request = Wait(ids=frozenset({"a"}), timeout=8)
    wake = await woken(redis_server, here, request, lambda: settle(there, job, Event.COMPLETE))
    assert wake.finals == {"a"}


@pytest.mark.usefixtures("no_polls")
async def test_a_job_that_falls_due_ends_a_wait_by_itself(
    redis_server: RedisServer, here: RedisDriver, there: RedisDriver
) -> None:
    request = Wait(others=True, timeout=8)
    began = time.monotonic()
    wake = await woken(redis_server, here, request, lambda: there.enqueue([spec("a", delay=0.3)]))
    assert wake.work
    assert time.monotonic() - began > 0.25


@pytest.mark.usefixtures("no_polls")
async def test_other_lanes_and_queues_wake_nobody(
    redis_server: RedisServer, here: RedisDriver, there: RedisDriver
) -> None:
    request = Wait(queues=("default",), lanes=frozenset({Lane.THREAD}), timeout=0.5)
    waiting = Waiting(here, request)
    async with admin(redis_server.url) as db, anyio.create_task_group() as group:
        group.start_soon(waiting.run)
        await listening(db, here)
        await there.enqueue([spec("lane"), spec("queue", queue="other", lane=Lane.THREAD)])
    assert waiting.wake == Wake()


@pytest.mark.usefixtures("no_polls")
async def test_one_connection_serves_all_waits_and_is_handed_on(
    redis_server: RedisServer, here: RedisDriver, there: RedisDriver
) -> None:
    """Those who wait read for each other; whoever reads may go."""
    done: list[str] = []

    async def wait_for(name: str) -> None:
        wake = await here.wait(Wait(ids=frozenset({name}), timeout=9))
        assert wake.finals == {name}
        done.append(name)

    names = [f"job {n}" for n in range(12)]
    await there.enqueue([spec(name) for name in names])
    async with admin(redis_server.url) as db, anyio.create_task_group() as group:
        scopes = []
        for _ in range(3):
            scopes.append(anyio.CancelScope())
            group.start_soon(_cancelled_wait, here, scopes[-1])
        for name in names:
            group.start_soon(wait_for, name)
        await listening(db, here)
        for scope in scopes:
            scope.cancel()
        jobs = (await claim(there, 12)).jobs
        for job in jobs:
            await settle(there, job, Event.COMPLETE)
            while job.token.id not in done:
                await anyio.sleep(0.002)
        channel = f"{{{namespace_of(here)}}}:work"
        assert (await db.ask("PUBSUB", "NUMSUB", channel))[1] == 1
    assert done == names


async def _cancelled_wait(driver: RedisDriver, scope: anyio.CancelScope) -> None:
    with scope:
        await driver.wait(Wait(queues=("never",), timeout=60))


async def test_a_killed_listener_costs_one_look(
    redis_server: RedisServer, here: RedisDriver, there: RedisDriver
) -> None:
    waiting = Waiting(here, Wait(queues=("default",), timeout=9))
    async with admin(redis_server.url) as db, anyio.create_task_group() as group:
        group.start_soon(waiting.run)
        await listening(db, here)
        await db.ask("CLIENT", "KILL", "TYPE", "PUBSUB")
        await there.enqueue([spec("a")])
        with anyio.fail_after(5 * POLL):
            await waiting.done.wait()
    assert waiting.wake == Wake(work=True)


async def test_what_is_there_already_ends_a_wait_at_once(here: RedisDriver) -> None:
    await here.enqueue([spec("a", queue="x"), spec("b", queue="y", delay=60)])
    request = Wait(queues=("default",), others=True, ids=frozenset({"a", "gone"}), timeout=8)
    assert await here.wait(request) == Wake(work=True, finals=frozenset({"gone"}))
    await here.pause(["x"])
    assert await here.wait(Wait(others=True, timeout=0)) == Wake()


async def test_a_close_ends_waits_and_calls(here: RedisDriver) -> None:
    ended = []

    async def wait() -> None:
        with pytest.raises(DriverError):
            await here.wait(Wait(queues=("default",), timeout=9))
        ended.append("wait")

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        await anyio.sleep(0.1)
        await here.aclose()
    assert len(ended) == 3
