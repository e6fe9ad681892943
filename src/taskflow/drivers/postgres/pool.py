"""Connections to one database: opened as they are needed, and never used again when in doubt.

Not the client's own pool: that one waits for the server when a cancelled caller leaves it, and
costs a statement each time a connection is given back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec

from taskflow.drivers.postgres.faults import unreachable
from taskflow.drivers.postgres.schema import DRIVER, Connection
from taskflow.errors import DriverUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Connection", "Pool", "Server")

CONNECTING: Final = 5
"""Seconds for a new connection."""
IDLE: Final = 300.0
"""Seconds after which a connection beyond the least number is closed."""


class _Loop:
    """The event loop, as the client gets it: what it leaves behind it does not complain of.

    A connect that is cut between two of its steps leaves a future that nobody can await any more,
    and which then gets an error.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def create_future(self) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        future.add_done_callback(_look_at)
        return future


def _look_at(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _loop() -> Any:
    return _Loop(asyncio.get_running_loop())


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Where the database is and how it is talked to."""

    dsn: str
    shown: str
    deadline: float = 30.0
    statement_cache_size: int = 100

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            DriverUnavailableError, StoreRefusedError: There is none to be had.
        """
        try:
            return await asyncpg.connect(
                self.dsn, timeout=CONNECTING, statement_cache_size=self.statement_cache_size,
                server_settings=self._settings(), loop=_loop(),
            )  # fmt: skip
        except Exception as exc:
            raise unreachable(exc, self.shown) from None  # its text may name the password

    def _settings(self) -> dict[str, str] | None:
        if self.statement_cache_size == 0:
            # Behind a pooler: it refuses what it does not know, and sessions are not ours.
            return None
        return {
            "application_name": "taskflow",
            "statement_timeout": str(round(self.deadline * 1000)),
            "lock_timeout": "10000",
            "idle_in_transaction_session_timeout": "60000",
            "tcp_keepalives_idle": "30",
            # Above it a function would see nothing that others did since it was called.
            "default_transaction_isolation": "read committed",
        }


class Pool:
    """Used on one asyncio loop.

    Args:
        server: Opens connections.
        least: So many are kept however long they are idle.
        most: So many are open at one time.
    """

    def __init__(self, server: Server, *, least: int, most: int) -> None:
        self._server = server
        self._least = least
        self._slots = asyncio.Semaphore(most)
        self._idle: deque[tuple[float, Connection]] = deque()
        self._busy: set[Connection] = set()
        self._patient: set[asyncio.Timeout] = set()
        self._is_open = True

    async def acquire(self, until: float) -> Connection:
        """A connection of one's own; to be given back by ``release`` or ``drop``.

        Args:
            until: The loop's time by which there must be one.

        Raises:
            DriverUnavailableError, StoreRefusedError: There is none; nothing was sent.
        """
        self._be_open()
        connection = None if self._slots.locked() else self._take_idle()
        if connection is None:
            return await self._waited_for(until)
        await self._slots.acquire()  # at once: there is a free one
        self._busy.add(connection)
        return connection

    async def _waited_for(self, until: float) -> Connection:
        patience = asyncio.timeout_at(until)
        self._patient.add(patience)
        try:
            async with patience:
                await self._slots.acquire()
                try:
                    connection = self._take_idle() or await self._server.connect()
                except BaseException:
                    self._slots.release()
                    raise
        except TimeoutError as exc:
            self._be_open()
            raise DriverUnavailableError(
                driver=DRIVER, problem=f"{self._server.shown}: no connection in time"
            ) from exc
        finally:
            self._patient.discard(patience)
        self._busy.add(connection)
        if not self._is_open:
            self.drop(connection)
        self._be_open()
        return connection

    def _be_open(self) -> None:
        if not self._is_open:
            raise DriverUnavailableError(driver=DRIVER, problem="the driver is closed")

    def _take_idle(self) -> Connection | None:
        while self._idle:
            _, connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def release(self, connection: Connection) -> None:
        """Give back one that is as good as new."""
        self._busy.discard(connection)
        if not self._is_open or connection.is_closed():
            connection.terminate()
        else:
            now = time.monotonic()
            self._idle.append((now, connection))
            while len(self._idle) > self._least and self._idle[0][0] < now - IDLE:
                self._idle.popleft()[1].terminate()
        self._slots.release()

    def drop(self, connection: Connection) -> None:
        """Give back one that is not to be used again."""
        self._busy.discard(connection)
        connection.terminate()
        self._slots.release()

    def distrust(self) -> None:
        """Close what is idle: whatever silenced one connection has perhaps silenced all."""
        while self._idle:
            self._idle.pop()[1].terminate()

    async def aclose(self, timeout: float) -> None:
        """Close everything; calls under way end with an error."""
        self._is_open = False
        for patience in self._patient:  # who waits for a connection waits no more
            if not patience.expired():
                patience.reschedule(0.0)
        for connection in tuple(self._busy):
            connection.terminate()
        idle: list[Callable[..., Any]] = [connection.close for _, connection in self._idle]
        connections = [connection for _, connection in self._idle]
        self._idle.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(close() for close in idle), return_exceptions=True)
        for connection in connections:
            connection.terminate()
