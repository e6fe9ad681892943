"""The one place, beside four drivers, that may know asyncio.

Clients that know asyncio only are called directly on asyncio. For callers on trio they live on an
asyncio loop in a thread of their own, which belongs to the driver's lifetime; a call crosses over
once, so one call should carry a batch (a crossing costs 0.2 ms on an idle loop). Holds beside that
what AnyIO does not tell: whether a cancellation on asyncio was asked for natively.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token

from taskflow.errors import DriverUnavailableError, OutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

__all__ = ("Bridge", "native_cancel_requests")

CLOSING: Final = 5.0
"""Seconds that a close waits for the thread."""
CUT: Final = 5.0
"""Seconds that a cancelled caller waits for its call to end."""
INSISTING: Final = 0.02
"""Seconds until such a call is cancelled once more: a client may swallow a cancellation."""


def native_cancel_requests() -> int:
    """How many ``Task.cancel()`` calls are pending on the running asyncio task; 0 on trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if task is None else task.cancelling()


@final
class Bridge:
    """Runs coroutine functions of asyncio-only clients for one event loop.

    Every call has a deadline of its own inside, in the loop that it runs on. A caller that is
    cancelled does not go before its call has ended: the call is cancelled too, and it is the
    called function's part to end at once (a client call that was cut in the middle costs its
    connection: terminate it).

    Args:
        name: For messages and the thread.
        timeout: Deadline in seconds of a call that has no other.
    """

    def __init__(self, name: str, *, timeout: float) -> None:
        self._name = name
        self._timeout = timeout
        self._thread: _LoopThread | None = None
        self._is_open = False

    async def start(self) -> None:
        """Be ready for calls from this event loop."""
        if not isinstance(current_token().native_token, asyncio.AbstractEventLoop):
            self._thread = _LoopThread(self._name)
            self._thread.start()
        self._is_open = True

    async def call(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any,
        timeout: float | None = None,
    ) -> T:  # fmt: skip
        """Run ``function(*args)`` where the client lives.

        Args:
            function: Knows asyncio only.
            args: What it gets.
            timeout: Seconds after which it is cancelled; default: the bridge's own.

        Raises:
            TimeoutError: The deadline passed.
            DriverUnavailableError: The bridge is closed; nothing was begun.
            OutcomeUnknownError: The bridge was closed under the call.
        """
        limit = self._timeout if timeout is None else timeout
        thread = self._thread
        if not self._is_open or (thread is not None and not thread.is_alive()):
            raise DriverUnavailableError(driver=self._name, problem="the driver is closed")
        if thread is None:
            return await _within(limit, function, args)
        return await thread.carry(_within(limit, function, args))

    async def aclose(self) -> None:
        """End the calls under way with an error, and the thread."""
        self._is_open = False
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join, CLOSING)


async def _within(
    seconds: float, function: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...]
) -> T:
    async with asyncio.timeout(seconds):
        return await function(*args)


class _LoopThread(threading.Thread):
    """An asyncio loop in a thread, for callers on another kind of loop."""

    def __init__(self, name: str) -> None:
        super().__init__(name=f"taskflow-{name}", daemon=True)
        self._driver = name
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._calls: set[_Call[Any]] = set()

    def run(self) -> None:
        """Serve until ``stop``; what is under way then is cancelled."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())
        for call in tuple(self._calls):  # posted too late to be begun
            call.tell()

    async def _serve(self) -> None:
        await self._stopping.wait()

    def stop(self) -> None:
        """Have the thread end; from any thread."""
        self._post(self._stopping.set)

    def _post(self, function: Callable[[], object]) -> bool:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            return False
        return True

    async def carry(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine over there and bring back what it came to."""
        call = _Call(self._loop, coroutine)
        self._calls.add(call)
        try:
            if not self._post(call.begin):
                coroutine.close()
                raise DriverUnavailableError(driver=self._driver, problem="the driver is closed")
            await call.done.wait()
        except BaseException:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CUT):
                while not call.done.is_set() and self._post(call.cancel):
                    with anyio.move_on_after(INSISTING):
                        await call.done.wait()
            raise
        finally:
            self._calls.discard(call)
        if call.task is None or call.task.cancelled():
            raise OutcomeUnknownError(driver=self._driver, problem="closed under the call")
        return call.task.result()


class _Call(Generic[T]):
    """One call on its way. ``done`` lives on the caller's loop, everything else on the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._caller: Any = current_token().native_token
        self.done = anyio.Event()
        self.task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        self.task = self._loop.create_task(self._coroutine)
        self.task.add_done_callback(self._end)

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # it is the caller's to look at, who may be gone
        self.tell()

    def tell(self) -> None:
        with suppress(Exception):  # the caller's loop is gone
            self._caller.run_sync_soon(self.done.set)
