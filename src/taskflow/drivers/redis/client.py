"""One script on a connection of its own, with a deadline and errors of the seam."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import MovedError, NoScriptError, ResponseError

from taskflow.drivers.redis.faults import AWAY, BROKEN, DRIVER, broken, translated
from taskflow.drivers.redis.pool import Pool
from taskflow.drivers.redis.rows import encode
from taskflow.drivers.redis.scripts import script
from taskflow.drivers.redis.server import pack
from taskflow.errors import DriverUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskflow.drivers.redis.scripts import Script
    from taskflow.drivers.redis.server import Server

__all__ = ("Client",)

REDIRECTS: Final = 8
"""How often a call is sent elsewhere, or with its script, before it is given up."""
SILENT: Final = 0.9
"""Seconds without an answer after which a call that is given up casts doubt on all connections."""


class Client:
    """Runs scripts on one asyncio loop.

    Args:
        server: Opens connections.
        tag: The key that names the namespace.
        shift: Microseconds by which the server's time is shifted.
        most: Connections at one time.
        deadline: Seconds for a call.
    """

    def __init__(
        self, server: Server, *, tag: str, shift: Callable[[], int], most: int, deadline: float
    ) -> None:
        self._server = server
        self._pool = Pool(server, most=most)
        self._tag = tag.encode()
        self._shift = shift
        self._deadline = deadline

    async def run(self, name: str, args: object, blobs: Iterable[bytes] = ()) -> Any:
        """The answer of a script.

        Args:
            name: Its file.
            args: What it gets, as msgpack.
            blobs: Bytes that ``args`` name by number.

        Raises:
            DriverError: As ``Driver`` says.
        """
        one = script(name)
        command = pack("EVALSHA", one.sha, "1", self._tag, str(self._shift()), encode(args), *blobs)
        until = self._until()
        for _ in range(REDIRECTS):
            try:
                return await self.send(command, until)
            except ResponseError as exc:
                await self._mend(exc, one, until)
        raise DriverUnavailableError(driver=DRIVER, problem="sent from one node to the next")

    def _until(self) -> float:
        return asyncio.get_running_loop().time() + self._deadline

    async def _mend(self, error: ResponseError, one: Script, until: float) -> None:
        """Do what makes another try worth while, or say what the refusal means."""
        if isinstance(error, NoScriptError):
            try:
                await self.send(pack("SCRIPT", "LOAD", one.text), until)
            except ResponseError as exc:
                raise translated(exc) from exc
        elif isinstance(error, MovedError):
            self._server.move(error.host, error.port)
            self._pool.distrust()
        else:
            if isinstance(error, AWAY):  # no master any more: look for the one that is
                self._server.forget()
                self._pool.distrust()
            raise translated(error) from error

    async def send(self, command: bytes, until: float | None = None) -> Any:
        """The answer to one packed command; refusals are raised as the client has them.

        Args:
            command: What ``pack`` made.
            until: The loop's time by which there must be a connection and the answer.
        """
        until = self._until() if until is None else until
        connection = await self._pool.acquire(until)
        began = time.monotonic()
        try:
            async with asyncio.timeout_at(until):
                await connection.send_packed_command(command, check_health=False)
                reply = await connection.read_response()
        except ResponseError:
            self._pool.release(connection)
            raise
        except BaseException as exc:
            # Cut in the middle: what comes next on this connection is not an answer to anybody.
            self._pool.drop(connection)
            if time.monotonic() - began >= SILENT:
                self._pool.distrust()
            if isinstance(exc, BROKEN):
                raise broken(exc) from exc
            raise
        self._pool.release(connection)
        return reply

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()
