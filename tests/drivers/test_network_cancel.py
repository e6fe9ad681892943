"""Callers that go in the middle of a call: at every await, of every operation, on both stores."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import settings

from taskflow.abc import Driver
from tests.drivers.network_kit import ON, OPERATIONS, Calls, Store, opened, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

_is_cutting: ContextVar[bool] = ContextVar("is_cutting", default=False)
MOST = 100
"""Awaits that no call has."""
DEEP = settings().max_examples > 500


@pytest.fixture(params=sorted(ON))
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    server = request.getfixturevalue(f"{request.param}_server")
    async with ON[request.param](server) as store:
        yield store


class Cutter:
    """Cancels the caller when its call comes to its n-th await, in whichever task that is.

    The client's tasks are made by this one's factory, which counts their awaits. On trio the client
    lives in a thread, which waits for a moment after the caller was told.
    """

    def __init__(self) -> None:
        self._at = self.seen = 0
        self._cancel: Callable[[], object] | None = None

    async def install(self) -> None:
        """On the loop on which this runs: the client's."""
        asyncio.get_running_loop().set_task_factory(self._task)

    async def remove(self) -> None:
        asyncio.get_running_loop().set_task_factory(None)

    def _task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        if _is_cutting.get():
            coroutine = _Steps(coroutine, self._step)
        return asyncio.Task(coroutine, loop=loop, **options)

    def _step(self) -> None:
        self.seen += 1
        if self.seen == self._at and self._cancel is not None:
            self._cancel()

    async def cut(self, call: Callable[[], Coroutine[Any, Any, Any]], at: int) -> bool:
        """Make the call, cancelled at that await; whether it had as many."""
        self._at, self.seen = at, 0
        token = _is_cutting.set(True)
        try:
            if isinstance(anyio.lowlevel.current_token().native_token, asyncio.AbstractEventLoop):
                await self._on_asyncio(call)
            else:
                await self._on_trio(call)
        finally:
            _is_cutting.reset(token)
            self._cancel = None
        return self.seen >= at

    async def _on_asyncio(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Asked for once, as asyncio does it: who swallows it does so for good."""
        task = asyncio.get_running_loop().create_task(call())
        self._cancel = task.cancel
        await asyncio.wait([task])
        assert task.cancelled() or self.seen < self._at or task.cancelling() == 0
        if not task.cancelled():
            task.result()

    async def _on_trio(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        caller: Any = anyio.lowlevel.current_token().native_token

        def cancel() -> None:
            caller.run_sync_soon(scope.cancel)
            time.sleep(0.002)

        with anyio.CancelScope() as scope:
            self._cancel = cancel
            await call()


class _Steps(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each await that really waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._coroutine, self._step = coroutine, step

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        awaited = self._coroutine.send(value)
        self._step()
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._coroutine.throw(*error)
        self._step()
        return awaited

    def close(self) -> None:
        self._coroutine.close()


@asynccontextmanager
async def cutting(driver: Driver) -> AsyncIterator[Cutter]:
    cutter = Cutter()
    bridge: Any = driver._bridge  # type: ignore[attr-defined]
    await bridge.call(cutter.install)
    try:
        yield cutter
    finally:
        await bridge.call(cutter.remove)


async def cold(driver: Any) -> None:
    """The next call needs a new connection."""

    async def forget() -> None:
        driver._store._client._pool.distrust()

    await driver._bridge.call(forget)


async def answered(driver: Driver) -> None:
    """Two callers at once get what they ask for."""
    async with anyio.create_task_group() as group:
        group.start_soon(ask, driver, "extend")
        group.start_soon(ask, driver, "fetch")


async def ask(driver: Driver, name: str) -> None:
    found, nobody = await driver.fetch([name, "nobody"])
    assert nobody is None
    assert found is not None
    assert found.payload == name.encode() == found.record.id.encode()


def steps(name: str, is_cold: bool) -> range:
    """At which awaits to cut: each one; but all operations open connections in the same way."""
    first = OPERATIONS.index(name) % 3 + 1
    each = DEEP or not is_cold or name in {"enqueue", "wait"}
    return range(1, MOST) if each else range(first, MOST, 3)


@pytest.mark.parametrize("is_cold", [False, True], ids=["warm", "cold"])
async def test_a_caller_that_goes_at_any_await_leaves_the_next_answer_right(
    store: Store, is_cold: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the call was about to do, to open a connection too: it ends at once, the pool stays
    whole, nobody gets somebody else's answer, and nothing is left behind, no future with an error
    in it either.
    """
    cuts = dict.fromkeys(OPERATIONS, 0)
    async with opened(store.driver(most=2, tells=False)) as driver:
        calls = Calls(driver)
        await calls.prepare()
        await calls.enqueue()
        async with cutting(driver) as cutter:
            for name in OPERATIONS:
                for at in steps(name, is_cold):
                    if is_cold:
                        await cold(driver)
                    with anyio.fail_after(10):
                        if not await cutter.cut(getattr(calls, name), at):
                            break
                    cuts[name] += 1
                    await answered(driver)
        await until(lambda: few(store, 3))  # one of them listens
    gc.collect()
    assert 0 not in cuts.values()
    assert sum(cuts.values()) < MOST * len(OPERATIONS) / 3
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == []


async def few(store: Store, most: int) -> bool:
    return await store.connections() <= most
