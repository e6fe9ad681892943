"""``Driver.wait``: look, then sleep until somebody tells, or for a while.

One connection subscribes for all waits of a driver. There is no task that reads it: one of those
who wait does, for all, and hands on when it goes. It is only a help: every wait looks for itself
once in ``POLL`` seconds, so a silent connection costs time and no more.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taskflow._core.records import Wait, Wake
from taskflow.drivers.redis.faults import BROKEN, DRIVER
from taskflow.drivers.redis.server import Connection, Server, abort, has_data, pack
from taskflow.errors import DriverError, DriverUnavailableError

if TYPE_CHECKING:
    from taskflow.drivers.redis.client import Client

__all__ = ("Waits",)

POLL: Final = 1.0
"""Seconds after which a wait looks for itself: the longest that work waits for a worker when no
news comes through."""
PING: Final = 5.0
"""Seconds between two proofs that the connection is alive."""
DEAF: Final = 2.0
"""Seconds in which it must answer."""
OPENING: Final = 1.0
"""Seconds in which it must be opened: nobody looks meanwhile."""
LINGER: Final = 2.0
"""Seconds that the connection stays open when nobody waits any more: what nobody reads piles up."""
DEAD: Final = (DriverError, *BROKEN)
"""How it may fail; beside waits that look for themselves, nobody needs to know."""

_works: Final = msgspec.msgpack.Decoder(list[tuple[str, str | bool]])
_names: Final = msgspec.msgpack.Decoder(list[str])
_glance: Final = msgspec.msgpack.Decoder(tuple[bool, list[str], bool, int | bool])


class _Waiter:
    """One call. ``woken`` says: look at the store, or whether you shall read."""

    def __init__(self, request: Wait) -> None:
        self._request = request
        self.is_told = False
        self.woken = asyncio.Event()

    def tell(self) -> None:
        self.is_told = True
        self.woken.set()

    def concerns(self, channel: str, message: bytes) -> bool:
        request = self._request
        if channel == "final":
            return bool(request.ids) and not request.ids.isdisjoint(_names.decode(message))
        if channel == "cancel":
            return request.worker_id in _names.decode(message)
        return any(
            (request.others or queue in request.queues) and (not lane or lane in request.lanes)
            for queue, lane in _works.decode(message)
        )


class Waits:
    """The waits of one open driver, on one asyncio loop.

    Args:
        client: Looks.
        server: Opens the connection that listens.
        tag: The key that names the namespace.
    """

    def __init__(self, client: Client, server: Server, tag: str) -> None:
        self._client, self._server = client, server
        self._prefix = f"{tag}:"
        self._waiters: set[_Waiter] = set()
        self._listener: Connection = None
        self._is_opening = self._is_reading = self._is_closed = False
        self._next_try = self._next_ping = self._answer_by = 0.0
        self._lingering: asyncio.TimerHandle | None = None

    async def wait(self, request: Wait) -> Wake:
        """See ``Driver.wait``."""
        deadline = time.monotonic() + request.timeout
        waiter = _Waiter(request)
        self._waiters.add(waiter)
        if self._lingering is not None:
            self._lingering.cancel()
        try:
            while True:
                waiter.is_told = False
                looked_at = time.monotonic()
                wake, due_in = await self._look(request)
                if wake.work or wake.finals or wake.cancels or time.monotonic() >= deadline:
                    return wake
                await self._listen()
                await self._sleep(waiter, min(deadline, looked_at + min(POLL, due_in)))
                if self._is_closed:
                    raise DriverUnavailableError(driver=DRIVER, problem="the driver is closed")
        finally:
            self._waiters.discard(waiter)
            self._hand_on(waiter)
            if not self._waiters and not self._is_closed:
                self._lingering = asyncio.get_running_loop().call_later(LINGER, self._rest)

    async def _look(self, request: Wait) -> tuple[Wake, float]:
        """What there is, and the seconds until the next job is due."""
        args = (
            request.queues, request.others, dict.fromkeys(request.lanes, True),
            tuple(request.ids), request.worker_id or "", dict.fromkeys(request.cancelling, True),
        )  # fmt: skip
        work, finals, cancels, due_in = _glance.decode(await self._client.run("glance", args))
        wake = Wake(work=work, finals=frozenset(finals), cancels=cancels)
        return wake, math.inf if due_in is False else due_in / 1_000_000

    async def _sleep(self, waiter: _Waiter, until: float) -> None:
        try:
            async with asyncio.timeout(until - time.monotonic()):
                while not waiter.is_told and not self._is_closed:
                    if self._listener is not None and not self._is_reading:
                        await self._read()
                    else:
                        waiter.woken.clear()
                        await waiter.woken.wait()
        except TimeoutError:
            pass
        finally:
            self._hand_on(waiter)

    # ---- the connection that listens

    async def _read(self) -> None:
        """Read one message for everybody. May be cut: nothing is lost by that."""
        listener = self._listener
        self._is_reading = True
        try:
            news = await listener.read_response(disconnect_on_error=False, push_request=True)
        except BROKEN:
            self._drop(listener)
        else:
            self._answer_by = math.inf
            self._hear(news)
        finally:
            self._is_reading = False

    def _hear(self, news: Any) -> None:
        if not isinstance(news, list) or len(news) != 3 or news[0] != b"message":
            return
        channel = news[1].decode().removeprefix(self._prefix)
        with suppress(msgspec.MsgspecError, UnicodeError):  # somebody else's, on our channel
            for waiter in self._waiters:
                if not waiter.is_told and waiter.concerns(channel, news[2]):
                    waiter.tell()

    def _hand_on(self, reader: _Waiter) -> None:
        """Have another one read, when nobody does."""
        if not self._is_reading:
            for waiter in self._waiters:
                if waiter is not reader and not waiter.is_told:
                    waiter.woken.set()
                    return

    def _rest(self) -> None:
        """Nobody has waited for a while."""
        if not self._waiters and self._listener is not None:
            self._drop(self._listener)

    async def _listen(self) -> None:
        """Have a connection that hears, if it can be had soon."""
        now = time.monotonic()
        if self._listener is not None and now > self._answer_by and not has_data(self._listener):
            self._drop(self._listener)
        if self._listener is None:
            if now >= self._next_try and not self._is_opening:
                await self._open()
        elif now >= self._next_ping and self._answer_by == math.inf:
            self._next_ping, self._answer_by = now + PING, now + DEAF
            self._listener._writer.write(pack("PING"))  # noqa: SLF001 - whoever reads hears it

    async def _open(self) -> None:
        self._is_opening = True
        self._next_try = time.monotonic() + POLL  # not in a circle, when each one is cut at once
        listener = None
        channels = [f"{self._prefix}{name}" for name in ("work", "final", "cancel")]
        try:
            async with asyncio.timeout(OPENING):
                listener = await self._server.connect()
                await listener.send_packed_command(pack("SUBSCRIBE", *channels), check_health=False)
                for _ in channels:
                    await listener.read_response(push_request=True)
        except DEAD:
            self._next_try = time.monotonic() + POLL
            if listener is not None:
                abort(listener)
        except BaseException:
            if listener is not None:
                abort(listener)
            self._next_try = 0.0  # this caller goes: another one is to open it
            self._tell_all()
            raise
        else:
            self._listener = listener
            self._answer_by, self._next_ping = math.inf, time.monotonic() + PING
            if self._is_closed:
                self._drop(listener)
            self._tell_all()  # what happened before it was there, nobody heard
        finally:
            self._is_opening = False

    def _drop(self, listener: Connection) -> None:
        abort(listener)
        if self._listener is listener:
            self._listener = None
            self._tell_all()  # what was said meanwhile, nobody heard

    def _tell_all(self) -> None:
        for waiter in self._waiters:
            waiter.tell()

    def close(self) -> None:
        """End every wait with an error."""
        self._is_closed = True
        if self._lingering is not None:
            self._lingering.cancel()
        if self._listener is not None:
            self._drop(self._listener)
        for waiter in self._waiters:
            waiter.woken.set()
