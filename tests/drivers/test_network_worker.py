"""Workers and callers on networks that fail: what goes on, what waits, and for how long."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import settings

from taskflow import App, AsyncTask, Worker
from taskflow._core.records import Timing
from taskflow._worker import leases
from taskflow.drivers.postgres import waits as postgres_waits
from taskflow.drivers.redis import waits as redis_waits
from taskflow.errors import DriverUnavailableError
from tests.drivers.network_kit import ON, Store
from tests.drivers.proxy import listeners

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

POLL = max(postgres_waits.POLL, redis_waits.POLL)
DEEP = settings().max_examples > 500
ROOM = 5.0
"""Seconds that a busy machine may add to what is promised."""
began: Counter[int] = Counter()
gates: list[anyio.Event] = []


class Notes(AsyncTask[int]):
    n: int

    async def execute(self) -> int:
        began[self.n] += 1
        await anyio.sleep(0.001)
        return self.n


class Holds(AsyncTask[None]):
    async def execute(self) -> None:
        await gates[-1].wait()


@pytest.fixture(params=sorted(ON))
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    began.clear()
    server = request.getfixturevalue(f"{request.param}_server")
    async with ON[request.param](server) as store:
        yield store


@asynccontextmanager
async def working(store: Store, **options: Any) -> AsyncIterator[App[Any]]:
    """An app on the store with a worker in this event loop."""
    async with App(driver=store.driver(most=5, call_timeout=10), **options) as app:
        worker = Worker(app, queues=("default",), grace=5.0)
        async with anyio.create_task_group() as group:
            await group.start(worker.run)
            yield app
            worker.stop()


# ---- connections that break under a worker


async def cut_five_times(store: Store) -> None:
    """In three seconds, as is promised; twice as fast where time is short."""
    for _ in range(5):
        await anyio.sleep(0.6 if DEEP else 0.3)
        await store.proxy.cut()


async def kill_in_a_loop(store: Store) -> None:
    killed = 0
    with anyio.fail_after(60):
        for n in itertools.count():
            if killed > (200 if DEEP else 25):
                return
            await anyio.sleep(n % 7 * 0.01)  # at another point each time
            killed += await store.kill()


@pytest.mark.parametrize("breaks", [cut_five_times, kill_in_a_loop])
async def test_a_worker_goes_on_when_its_connections_break(
    store: Store, breaks: Callable[[Store], Awaitable[None]]
) -> None:
    """Five times in three seconds, or all of them again and again: each job runs once and is
    completed, and those dispatched afterwards run as before.
    """
    async with working(store, lease=60) as app:
        jobs = [await dispatched(app, 0)]
        async with anyio.create_task_group() as group:
            group.start_soon(dispatch_on, app, jobs, group.cancel_scope)
            await breaks(store)
            group.cancel_scope.cancel()
        for _ in range(20):
            jobs.append(await dispatched(app, len(jobs)))
        healed = time.monotonic()
        for n, job in enumerate(jobs):
            assert await job.result(timeout=60) == n
        assert time.monotonic() - healed < 10 + ROOM
    assert began == dict.fromkeys(range(len(jobs)), 1)


async def dispatch_on(app: App[Any], jobs: list[Any], scope: anyio.CancelScope) -> None:
    while not scope.cancel_called:
        with anyio.CancelScope(shield=True):
            jobs.append(await dispatched(app, len(jobs)))
        await anyio.sleep(0.01)


async def dispatched(app: App[Any], n: int) -> Any:
    while True:
        try:
            (job,) = await app.dispatch_many([Notes(n=n)])
        except DriverUnavailableError:  # surely not applied
            await anyio.sleep(0.01)
        else:
            return job


# ---- news that do not come


async def test_a_dead_listener_costs_no_more_than_the_polling_floor(store: Store) -> None:
    """Only the connection that brings news is silent, from its begin or from later on: what
    others dispatch starts within ``POLL`` all the same.
    """
    store.proxy.silence(listeners)
    async with working(store), App(driver=store.driver()) as other:
        await starts_soon(other, 0)
        await starts_soon(other, 1)
        await store.proxy.heal()
        await store.proxy.cut(listeners)
        with anyio.fail_after(20):
            while not any(link.listens for link in store.proxy.links):
                await anyio.sleep(0.01)
            await anyio.sleep(0.1)
        store.proxy.silence(listeners)
        await starts_soon(other, 2)


async def starts_soon(app: App[Any], n: int) -> None:
    """Without looking for its end: who waits for that listens, too."""
    await app.dispatch_many([Notes(n=n)])
    with anyio.fail_after(POLL + 3):  # a worker by itself would look every five seconds
        while not began[n]:
            await anyio.sleep(0.005)


async def test_news_that_are_cut_off_each_time_are_not_asked_for_in_a_circle(
    store: Store,
) -> None:
    """A connection a second at most, from the worker and from those who wait for results."""
    async with working(store) as app:
        assert await (await dispatched(app, 0)).result(timeout=20) == 0
        store.proxy.cut_always(listeners)
        await store.proxy.cut(listeners)
        before, began_at = store.proxy.accepted, time.monotonic()
        await starts_soon(app, 1)
        await anyio.sleep(2)
        opened = store.proxy.accepted - before
        assert opened <= 3 + 2 * (time.monotonic() - began_at) / POLL


# ---- nobody is there


async def refused(store: Store) -> None:
    await store.proxy.refuse()


async def silent(store: Store) -> None:
    store.proxy.silence()


@pytest.mark.parametrize("away", [refused, silent])
async def test_a_worker_whose_server_is_away_rests(
    store: Store, away: Callable[[Store], Awaitable[None]]
) -> None:
    """It takes less than a fifth of a core while it tries to come back, and then goes on."""
    gates.append(anyio.Event())
    async with working(store, lease=2) as app:
        await app.dispatch_many([Holds(), Holds()])
        await anyio.sleep(0.2)
        await away(store)
        wall, cpu = time.monotonic(), time.process_time()
        await anyio.sleep(5.0 if DEEP else 0.8)
        share = (time.process_time() - cpu) / (time.monotonic() - wall)
        await store.proxy.heal()
        gates[-1].set()
        job = await dispatched(app, 1)
        assert await job.result(timeout=30) == 1
    assert share < 0.2


async def test_an_outage_is_told_once(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By those who renew leases; and its end, too."""
    caplog.set_level(logging.INFO, "taskflow.worker")
    monkeypatch.setattr(leases, "AWAY_PAUSE", 0.02)
    monkeypatch.setattr(Timing, "beat", property(lambda _: 0.05))
    gates.append(anyio.Event())

    def said(part: str) -> int:
        return sum(part in one.getMessage() for one in caplog.records)

    async with working(store, lease=60) as app:
        (held,) = await app.dispatch_many([Holds()])
        for n in range(1, 3):
            await anyio.sleep(0.2)
            await store.proxy.refuse()
            await anyio.sleep(0.4)
            await store.proxy.heal()
            with anyio.fail_after(20):
                while said("leases are renewed again") < n:
                    await anyio.sleep(0.01)
            assert said("leases could not be renewed") == n
        gates[-1].set()
        await held.result(timeout=20)
