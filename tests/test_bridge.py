"""Asyncio-only clients for callers on either event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from taskflow._bridge import Bridge
from taskflow.errors import DriverUnavailableError, OutcomeUnknownError

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    bridge = Bridge("test", timeout=5)
    await bridge.start()
    try:
        yield bridge
    finally:
        await bridge.aclose()


class Client:
    """Knows asyncio only, and keeps a record."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.is_cut = False
        self.ran_in: str | None = None

    async def add(self, one: int, other: int) -> int:
        await asyncio.sleep(0)
        self.ran_in = threading.current_thread().name
        return one + other

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise LookupError("told so")

    async def hang(self) -> None:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.is_cut = True

    async def swallow(self) -> None:
        """Takes the first cancellation for something else, as clients do."""
        with contextlib.suppress(asyncio.CancelledError):
            await self.hang()
        self.is_cut = False
        await self.hang()


async def begun(client: Client) -> None:
    with anyio.fail_after(5):
        while not client.begun.is_set():
            await anyio.sleep(0.001)


async def test_results_and_errors_come_back(bridge: Bridge, anyio_backend_name: str) -> None:
    client = Client()
    assert await bridge.call(client.add, 1, 2) == 3
    crossed = client.ran_in != threading.current_thread().name
    assert crossed == (anyio_backend_name == "trio")
    with pytest.raises(LookupError, match="told so"):
        await bridge.call(client.fail)


async def test_many_callers_at_once(bridge: Bridge) -> None:
    client, found = Client(), set[int]()

    async def ask(number: int) -> None:
        found.add(await bridge.call(client.add, number, 0))

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(ask, number)
    assert found == set(range(200))


async def test_each_call_has_a_deadline(bridge: Bridge) -> None:
    client = Client()
    with pytest.raises(TimeoutError):
        await bridge.call(client.hang, timeout=0.05)
    assert client.is_cut
    assert await bridge.call(client.add, 1, 1) == 2


async def test_a_cancelled_caller_sees_its_call_end(bridge: Bridge) -> None:
    client = Client()
    async with anyio.create_task_group() as group:
        group.start_soon(bridge.call, client.hang)
        await begun(client)
        group.cancel_scope.cancel()
    assert client.is_cut
    assert await bridge.call(client.add, 1, 1) == 2


async def test_a_client_that_swallows_a_cancellation_is_cancelled_again(bridge: Bridge) -> None:
    client, began = Client(), time.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(bridge.call, client.swallow)
        await begun(client)
        group.cancel_scope.cancel()
    assert client.is_cut
    assert time.monotonic() - began < 3  # the deadline of a call that is cut is 5 s


async def test_a_caller_that_is_cancelled_already_leaves_nothing(bridge: Bridge) -> None:
    client = Client()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bridge.call(client.hang)
    assert scope.cancelled_caught
    assert client.is_cut == client.begun.is_set()


async def test_nothing_is_begun_on_a_closed_bridge(bridge: Bridge) -> None:
    await bridge.aclose()
    with pytest.raises(DriverUnavailableError):
        await bridge.call(Client().add, 1, 2)
    await bridge.start()
    assert await bridge.call(Client().add, 1, 2) == 3


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_close_ends_the_calls_under_way_and_the_thread(bridge: Bridge) -> None:
    client, errors = Client(), list[Exception]()

    async def ask() -> None:
        try:
            await bridge.call(client.hang)
        except OutcomeUnknownError as exc:
            errors.append(exc)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await begun(client)
        assert "taskflow-test" in {thread.name for thread in threading.enumerate()}
        await bridge.aclose()
    assert client.is_cut
    assert len(errors) == 1
    assert "taskflow-test" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_calls_that_race_with_a_close_all_end(bridge: Bridge) -> None:
    client, ended = Client(), 0

    async def ask() -> None:
        nonlocal ended
        with contextlib.suppress(OutcomeUnknownError, DriverUnavailableError):
            await bridge.call(client.add, 1, 2)
        ended += 1

    with anyio.fail_after(5):
        for _ in range(20):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(ask)
                group.start_soon(bridge.aclose)
            await bridge.start()
    assert ended == 400
