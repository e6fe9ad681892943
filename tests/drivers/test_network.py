"""Networks that fail between taskflow and a server: what was promised of calls holds."""

from __future__ import annotations

import inspect
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from taskflow._core.queries import Replayed
from taskflow._core.records import Accepted, Cancelled, Enqueued, Extended, Settled, Verdict, Wake
from taskflow._core.states import JobState
from taskflow.abc import Driver
from taskflow.drivers.postgres import pool as postgres_pool
from taskflow.drivers.redis import server as redis_server
from taskflow.errors import DriverUnavailableError, OutcomeUnknownError
from tests.drivers.network_kit import (
    LAPSES,
    ON,
    OPERATIONS,
    Calls,
    Shift,
    Store,
    insist,
    opened,
    until,
)

ROOM = 5.0
"""Seconds that a busy machine may add to what is promised."""
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(params=sorted(ON))
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    server = request.getfixturevalue(f"{request.param}_server")
    async with ON[request.param](server) as store:
        yield store


ELSE = {"open", "aclose", "check", "twin", "migrate", "enqueue_on"}
"""What is no operation, or goes over a connection that is the caller's."""


def test_no_operation_is_forgotten() -> None:
    """Whoever adds one to the seam says in ``Calls`` what it does, and below what a repeat says."""
    seam = {name for name, _ in inspect.getmembers(Driver, inspect.isfunction) if name[0] != "_"}
    assert set(OPERATIONS) == seam - ELSE


REPEATED: dict[str, Any] = {
    "enqueue": [Enqueued(Accepted.DUPLICATE, "enqueue")],
    "extend": [Extended.RENEWED],
    "settle": [Settled(Verdict.ALREADY, JobState.COMPLETED)],
    "expire": [],
    "cancel": [Cancelled.FINAL],
    "replay": [Replayed.REFUSED],
    "purge": 0,
    "pause": None,
    "resume": None,
    "prune": 0,
    "wait": Wake(work=True),
}
"""What the second try of each operation says, of which the first was applied."""
STATES = {
    "enqueue": JobState.AVAILABLE, "claim": JobState.RUNNING, "extend": JobState.RUNNING,
    "settle": JobState.COMPLETED, "expire": JobState.AVAILABLE, "cancel": JobState.CANCELLED,
    "fetch": JobState.AVAILABLE, "replay": JobState.AVAILABLE, "purge": None, "prune": None,
}  # fmt: skip


async def states(driver: Driver) -> dict[str, JobState | None]:
    found = await driver.fetch(tuple(STATES))
    return {
        name: None if one is None else one.record.state
        for name, one in zip(STATES, found, strict=True)
    }


async def test_a_reply_that_is_lost_after_the_commit_is_made_good_by_a_repeat(
    store: Store,
) -> None:
    """Each operation is applied, its answer swallowed, the connection cut: the caller learns that
    the outcome is unknown, and the very same call says what is true and does nothing twice.
    """
    clock = Shift()
    async with opened(store.driver(clock=clock, tells=False)) as driver:
        calls, before = Calls(driver), Calls(driver, "before ", limit=0)
        await calls.prepare()
        await before.prepare()
        for n, name in enumerate(OPERATIONS, 1):
            clock.offset = 2 * LAPSES * (name in {"expire", "prune"})
            await getattr(before, name)()  # whatever has to be learnt of the server is known now
            plain = name in {"claim", "fetch", "list_jobs", "stats"}
            wanted = await getattr(calls, name)() if plain else REPEATED[name]
            store.proxy.lose_reply()
            reply, met = await insist(getattr(calls, name))
            assert reply == wanted, name
            assert [type(one) for one in met] == [OutcomeUnknownError], name
            assert store.proxy.lost == n
        assert await states(driver) == STATES


async def test_answers_may_come_byte_by_byte(store: Store) -> None:
    async with opened(store.driver(tells=False)) as driver:
        one, other = Calls(driver, "one "), Calls(driver, "other ")
        await one.prepare()
        await other.prepare()
        whole = {name: await getattr(one, name)() for name in OPERATIONS}
        store.proxy.slice()
        await store.proxy.cut()
        for name in OPERATIONS:
            reply, _ = await insist(getattr(other, name))
            assert shape(reply) == shape(whole[name]), name


def shape(reply: Any) -> str:
    """An answer without what tells one job from another."""
    return re.sub(r"one |other |\d+", "", repr(reply))


async def test_an_open_that_is_cut_leaves_nothing(store: Store) -> None:
    """Neither connections nor threads; the same driver can be opened afterwards."""
    threads = threading.active_count()
    driver = store.driver()
    for n in range(20):
        with anyio.move_on_after(n * 0.002) as scope:
            await driver.open()
        if not scope.cancelled_caught:
            await driver.aclose()
    async with opened(driver):
        await driver.fetch(["nobody"])
    assert threading.active_count() <= threads + 1  # AnyIO's own, for the join
    await until(lambda: nobody_is_left(store))


async def nobody_is_left(store: Store) -> bool:
    return await store.connections() == 0


# ---- nobody answers


async def test_a_blackhole_is_found_by_every_operation(store: Store) -> None:
    """Bytes go out and nothing comes back: each call ends within its deadline of one second (two
    are promised), and afterwards the next ones are answered.
    """
    async with opened(store.driver(most=20, tells=False, call_timeout=1)) as driver:
        calls = Calls(driver)
        await calls.prepare()
        for _ in range(2):  # with connections that are there, then with none
            store.proxy.silence()
            async with anyio.create_task_group() as group:
                for name in OPERATIONS:
                    group.start_soon(gives_up, getattr(calls, name))
            await store.proxy.heal()
        reply, _ = await insist(lambda: driver.fetch(["fetch"]))
        assert reply[0] is not None


async def gives_up(call: Callable[[], Awaitable[object]]) -> Exception:
    began = time.monotonic()
    with pytest.raises((DriverUnavailableError, OutcomeUnknownError)) as caught:
        await call()
    assert time.monotonic() - began < 2 + ROOM
    return caught.value


async def test_more_callers_than_connections_all_give_up(store: Store) -> None:
    """Those who never get a connection learn within the deadline that nothing was applied."""
    async with opened(store.driver(most=2, tells=False, call_timeout=1)) as driver:
        calls = [Calls(driver, f"{n} ") for n in range(8)]
        await calls[0].prepare()
        store.proxy.silence()
        errors = dict[str, Exception]()

        async def give_up(n: int) -> None:
            errors[f"{n} enqueue"] = await gives_up(calls[n].enqueue)

        async with anyio.create_task_group() as group:
            for n in range(8):
                group.start_soon(give_up, n)
        sure = [name for name, one in errors.items() if isinstance(one, DriverUnavailableError)]
        assert len(sure) >= 6
        await store.proxy.heal()
        reply, _ = await insist(lambda: driver.fetch(sure))
        assert reply == [None] * len(sure)
        (stored,), _ = await insist(calls[0].enqueue)
        assert stored.verdict in {Accepted.ACCEPTED, Accepted.DUPLICATE}


async def test_callers_that_go_in_a_blackhole_are_not_held(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go at once, with a connection or without one, and so does a driver that is closed."""
    monkeypatch.setattr(postgres_pool, "CONNECTING", 60)
    monkeypatch.setattr(redis_server, "CONNECTING", 60)
    async with opened(store.driver(most=20, tells=False, call_timeout=20)) as driver:
        calls = Calls(driver)
        await calls.prepare()
        store.proxy.silence()
        began = time.monotonic()
        for _ in range(2):  # with connections that are there, then with none
            async with anyio.create_task_group() as group:
                for name in OPERATIONS:
                    group.start_soon(getattr(calls, name))
                await anyio.sleep(0.2)
                group.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            group.start_soon(gives_up, calls.fetch)
            await anyio.sleep(0.1)
            await driver.aclose()
        assert time.monotonic() - began < 3 + ROOM
