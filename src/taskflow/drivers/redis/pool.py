"""Connections to one store: opened as they are needed, and never used again when in doubt.

Not the client's own pool: that one repeats calls by itself and hands out what a cancelled caller
left behind.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from taskflow.drivers.redis.faults import DRIVER
from taskflow.drivers.redis.server import abort
from taskflow.errors import DriverUnavailableError

if TYPE_CHECKING:
    from taskflow.drivers.redis.server import Connection, Server

__all__ = ("Pool",)

IDLE: Final = 300.0
"""Seconds after which a connection that nobody used is closed."""


class Pool:
    """Used on one asyncio loop.

    Args:
        server: Opens connections.
        most: So many are open at one time.
    """

    def __init__(self, server: Server, *, most: int) -> None:
        self._server = server
        self._slots = asyncio.Semaphore(most)
        self._idle: deque[tuple[float, Connection]] = deque()
        self._busy: dict[Connection, int] = {}
        self._patient: set[asyncio.Timeout] = set()
        self._trust = 0
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
        self._busy[connection] = self._trust
        return connection

    async def _waited_for(self, until: float) -> Connection:
        patience = asyncio.timeout_at(until)
        self._patient.add(patience)
        try:
            async with patience:
                await self._slots.acquire()
                trust = self._trust
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
        self._busy[connection] = trust
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
            if not _is_dead(connection):
                return connection
            abort(connection)
        return None

    def release(self, connection: Connection) -> None:
        """Give back one that is as good as new."""
        if not self._is_open or self._busy[connection] != self._trust:
            self.drop(connection)
            return
        del self._busy[connection]
        now = time.monotonic()
        self._idle.append((now, connection))
        while self._idle[0][0] < now - IDLE:
            abort(self._idle.popleft()[1])
        self._slots.release()

    def drop(self, connection: Connection) -> None:
        """Give back one that is not to be used again."""
        if self._busy.pop(connection, None) is not None:
            self._slots.release()
        abort(connection)

    def distrust(self) -> None:
        """Use no connection again that is open now: whatever silenced one has perhaps silenced
        all, or the store has moved.
        """
        self._trust += 1
        while self._idle:
            abort(self._idle.pop()[1])

    def close(self) -> None:
        """Close everything; calls under way end with an error."""
        self._is_open = False
        for patience in self._patient:  # who waits for a connection waits no more
            if not patience.expired():
                patience.reschedule(0.0)
        self.distrust()
        for connection in tuple(self._busy):
            writer = connection._writer  # noqa: SLF001 - its reader is told, and drops it
            if writer is not None:
                writer.transport.abort()


def _is_dead(connection: Connection) -> bool:
    """The other side has closed it while nobody looked."""
    reader = connection._reader  # noqa: SLF001 - the public way takes a turn of the loop
    return reader is None or reader.at_eof() or reader.exception() is not None
