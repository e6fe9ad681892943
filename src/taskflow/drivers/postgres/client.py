"""One statement on a connection of its own, with a deadline and errors of the seam."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from taskflow.drivers.postgres.faults import AGAIN, is_fatal, translated
from taskflow.drivers.postgres.pool import Connection, Pool, Server
from taskflow.drivers.postgres.schema import DRIVER
from taskflow.errors import DriverUnavailableError, OutcomeUnknownError, TaskflowError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

__all__ = ("Client", "Connection")

TRIES: Final = 8
"""How often a statement is begun again that the server rolled back because callers met."""
SILENT: Final = 0.9
"""Seconds without an answer after which a call that is given up casts doubt on all connections."""


class Client:
    """Runs statements on one asyncio loop. Each is a transaction of its own."""

    def __init__(self, server: Server, *, least: int, most: int) -> None:
        self._pool = Pool(server, least=least, most=most)
        self._deadline = server.deadline

    async def rows(self, statement: str, *args: Any) -> list[Any]:
        """The rows that the statement gives.

        Raises:
            DriverError: As ``Driver`` says.
        """
        return await self.run(lambda connection: connection.fetch(statement, *args))

    async def row(self, statement: str, *args: Any) -> Any:
        """Its only row."""
        return (await self.rows(statement, *args))[0]

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do one thing that is a transaction of its own on a connection.

        Raises:
            DriverUnavailableError: It was not done, or there was no connection in time.
            DriverError: As ``Driver`` says.
        """
        until = asyncio.get_running_loop().time() + self._deadline
        for left in reversed(range(TRIES)):
            try:
                return await self._once(work, until)
            except AGAIN as exc:
                if not left:
                    raise DriverUnavailableError(driver=DRIVER, problem=str(exc)) from exc
                await asyncio.sleep(random.uniform(0.001, 0.01) * (TRIES - left))  # noqa: S311
        raise AssertionError

    async def _once(self, work: Callable[[Connection], Awaitable[T]], until: float) -> T:
        connection = await self._pool.acquire(until)
        began = time.monotonic()
        try:
            async with asyncio.timeout_at(until):
                result = await work(connection)
        except asyncpg.PostgresError as exc:
            if is_fatal(exc) or connection.is_closed():
                self._pool.drop(connection)
            else:
                self._pool.release(connection)
            if isinstance(exc, AGAIN):
                raise
            raise translated(exc) from exc
        except BaseException as exc:
            # Cut in the middle: what comes next on this connection is not an answer to anybody.
            self._pool.drop(connection)
            if time.monotonic() - began >= SILENT:
                self._pool.distrust()
            if isinstance(exc, Exception) and not isinstance(exc, TaskflowError):
                raise OutcomeUnknownError(
                    driver=DRIVER, problem=f"the connection broke: {str(exc) or type(exc).__name__}"
                ) from exc
            raise
        self._pool.release(connection)
        return result

    async def aclose(self, timeout: float) -> None:
        """Close every connection."""
        await self._pool.aclose(timeout)
