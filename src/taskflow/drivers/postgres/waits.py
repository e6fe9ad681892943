"""``Driver.wait``: look, then sleep until somebody tells, or for a while.

One connection listens for all waits of a driver. It is only a help: every wait looks for itself
once in ``POLL`` seconds, so a silent listener costs time and no more. A listener that does not hear
itself (a dead connection, a pooler in between) is closed and opened again later.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from taskflow._core.records import Wait, Wake
from taskflow.drivers.postgres.faults import BROKEN
from taskflow.drivers.postgres.rows import ANYTHING, ITEM, PART, plain, safe
from taskflow.errors import DriverError, DriverUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskflow.drivers.postgres.client import Client
    from taskflow.drivers.postgres.names import Names
    from taskflow.drivers.postgres.pool import Connection, Server

__all__ = ("Waits",)

POLL: Final = 1.0
"""Seconds after which a wait looks for itself: the longest that work waits for a worker when no
notification comes through."""
PING: Final = 5.0
"""Seconds between two proofs that the listener hears."""
HEARING: Final = 1.0
"""Seconds in which it must hear itself, and in which it must be opened."""
DEAD: Final = (DriverError, asyncpg.PostgresError, *BROKEN)
"""How a listener may fail; beside waits that look for themselves, nobody needs to know."""
DEAF: Final = 30.0
"""Seconds before a listener that did not hear is opened again."""


class _Waiter:
    def __init__(self, request: Wait) -> None:
        self._request = request
        self.event = asyncio.Event()
        self.has_work = False

    def tell(self, items: Iterable[str]) -> None:
        """Wake up if the news are any. What is said of work needs no look: a claim is one."""
        for item in items:
            if self._concerns(item):
                self.has_work = self.has_work or item.startswith(f"w{PART}")
                self.event.set()

    def _concerns(self, item: str) -> bool:
        request, (kind, *parts) = self._request, item.split(PART)
        if kind == "w" and len(parts) == 2:
            lane, queue = parts
            return lane in request.lanes and (request.others or plain(queue) in request.queues)
        if kind == "f":
            return bool(request.ids)
        if kind == "c":
            return request.worker_id is not None and plain(parts[0]) == request.worker_id
        return kind == ANYTHING


class Waits:
    """The waits of one open driver, on one asyncio loop.

    Args:
        client: Looks.
        server: Opens the listener.
        names: Of the store.
        shift: Microseconds by which time is shifted.
        listens: There is to be a listener.
    """

    def __init__(
        self, client: Client, server: Server, names: Names, shift: Callable[[], int], *,
        listens: bool,
    ) -> None:  # fmt: skip
        self._client, self._server, self._names, self._shift = client, server, names, shift
        self._listens = listens
        self._waiters: set[_Waiter] = set()
        self._listener: Connection = None
        self._lock = asyncio.Lock()
        self._own = f"{names.channel}_{token_hex(4)}"
        self._heard = asyncio.Event()
        self._next_try = self._next_ping = 0.0
        self._is_closed = self._is_asked = False
        self._glance = names.fill("SELECT * FROM {f_glance}($1, $2, $3, $4, $5, $6, $7)")

    def tell(self, items: Iterable[str]) -> None:
        """Wake those whom the news concern."""
        news = tuple(items)
        for waiter in self._waiters:
            waiter.tell(news)

    async def wait(self, request: Wait) -> Wake:
        """See ``Driver.wait``."""
        deadline = time.monotonic() + request.timeout
        waiter = _Waiter(request)
        self._waiters.add(waiter)
        try:
            while True:
                waiter.event.clear()
                looked_at = time.monotonic()
                wake = await self._look(request)
                if wake.work or wake.finals or wake.cancels or time.monotonic() >= deadline:
                    return wake
                await self._listen()
                await self._sleep(waiter, min(deadline, looked_at + POLL))
                if self._is_closed:
                    raise DriverUnavailableError(driver="postgres", problem="the driver is closed")
                if waiter.has_work:
                    return Wake(work=True)
        finally:
            self._waiters.discard(waiter)

    async def _sleep(self, waiter: _Waiter, until: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                await waiter.event.wait()

    async def _look(self, request: Wait) -> Wake:
        work, finals, cancels = await self._client.row(
            self._glance, [safe(queue) for queue in request.queues], request.others,
            [lane.value for lane in request.lanes], [safe(job_id) for job_id in request.ids],
            None if request.worker_id is None else safe(request.worker_id),
            [safe(job_id) for job_id in request.cancelling], self._shift(),
        )  # fmt: skip
        return Wake(work=work, finals=frozenset(map(plain, finals)), cancels=cancels)

    # ---- the listener

    async def _listen(self) -> None:
        """Have a listener that hears, if it can be had soon."""
        now = time.monotonic()
        is_live = self._listener is not None and not self._listener.is_closed()
        due = self._next_ping if is_live else self._next_try
        if not self._listens or now < due or self._lock.locked():
            return
        async with self._lock:
            self._is_asked = False
            try:
                async with asyncio.timeout(HEARING):
                    listener = self._listener if is_live else await self._open_listener()
                    await self._ping(listener)
            except DEAD:
                # A new one that was asked and heard nothing never will; others were cut off.
                self._next_try = now + (DEAF if self._is_asked and not is_live else POLL)
                self._drop_listener()
            except BaseException:
                self._drop_listener()
                self._next_try = 0.0  # this caller goes: another one is to open it
                self.tell((ANYTHING,))
                raise
            else:
                self._next_ping = now + PING
                if not is_live:
                    self.tell((ANYTHING,))  # what happened before it was there, nobody heard

    async def _open_listener(self) -> Connection:
        self._drop_listener()
        self._next_try = time.monotonic() + POLL  # not in a circle, when each one is cut at once
        self._listener = listener = await self._server.connect()
        if self._is_closed:
            self._drop_listener()
        await listener.add_listener(self._names.channel, self._hear)
        await listener.add_listener(self._own, self._hear)
        return listener

    async def _ping(self, listener: Connection) -> None:
        self._heard.clear()
        await listener.execute("SELECT pg_notify($1, '')", self._own)
        self._is_asked = True
        await self._heard.wait()

    def _hear(self, _: Any, __: int, channel: str, payload: str) -> None:
        if channel == self._own:
            self._heard.set()
        else:
            self.tell(payload.split(ITEM))

    def _drop_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.terminate()

    def close(self) -> None:
        """End every wait with an error."""
        self._is_closed = True
        self._drop_listener()
        for waiter in self._waiters:
            waiter.event.set()
