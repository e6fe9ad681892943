"""Opening connections to whoever is the store's server now."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

import hiredis
from redis.asyncio.connection import Connection as TcpConnection
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError, ResponseError

from taskflow.drivers.redis.faults import DRIVER, unreachable
from taskflow.errors import DriverError, DriverUnavailableError

if TYPE_CHECKING:
    from taskflow.drivers.redis.address import Address

__all__ = ("CONNECTING", "Connection", "Server", "abort", "ask", "has_data", "pack")

Connection = Any
"""A connection of redis-py's, which has no types that are worth their name."""

CONNECTING: Final = 5.0
"""Seconds for a new connection."""
_PATIENCE: Final = {
    "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000,
}  # fmt: skip
_KEEPALIVE: Final = {
    getattr(socket, name): value for name, value in _PATIENCE.items() if hasattr(socket, name)
}


def pack(*words: str | bytes) -> bytes:
    """A command as it goes over the wire."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


async def ask(connection: Connection, *words: str) -> Any:
    """Send one command and read its answer."""
    await connection.send_packed_command(pack(*words), check_health=False)
    return await connection.read_response()


def abort(connection: Connection) -> None:
    """Close a connection at once; nobody reads from it any more."""
    writer = connection._writer  # noqa: SLF001 - its own way waits for the other side
    if writer is not None:
        connection._parser.on_disconnect()  # noqa: SLF001
        connection._reader = connection._writer = None  # noqa: SLF001
        writer.transport.abort()


def has_data(connection: Connection) -> bool:
    """Something has come that nobody has read."""
    return bool(connection._reader._buffer)  # noqa: SLF001 - there is no public way to know


class Server:
    """Opens connections; knows where the store has moved to.

    Args:
        address: Where it is said to be.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._moved_to: tuple[str, int] | None = None

    @property
    def shown(self) -> str:
        """Where the store is, without any secret."""
        return self._address.shown

    def move(self, host: str, port: int) -> None:
        """A node said that another one has our slot."""
        self._moved_to = (host or self._hosts()[0][0], port)

    def forget(self) -> None:
        """What was learnt of the store's place may be wrong."""
        self._moved_to = None

    def _hosts(self) -> tuple[tuple[str, int], ...]:
        moved = () if self._moved_to is None else (self._moved_to,)
        return (*moved, *self._address.hosts)

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            DriverUnavailableError, StoreRefusedError: There is none to be had.
        """
        if self._address.kind == "unix":
            return await self._opened(None)
        if self._address.kind == "sentinel":
            return await self._master()
        return await self._first(self._hosts())

    async def _first(self, hosts: tuple[tuple[str, int], ...]) -> Connection:
        for host in hosts[:-1]:
            try:
                return await self._opened(host)
            except DriverUnavailableError:
                self._moved_to = None
        return await self._opened(hosts[-1])

    async def _master(self) -> Connection:
        """Ask the Sentinels; a server that is no master any more is not taken."""
        problem: DriverError | None = None
        for host in self._address.hosts:
            try:
                connection = await self._opened(await self._named_by(host))
            except DriverError as exc:
                problem = exc
                continue
            if await self._is_master(connection):
                return connection
            problem = self._away("the server that a Sentinel named is no master")
        assert problem is not None
        raise problem

    async def _is_master(self, connection: Connection) -> bool:
        role = [b""]
        try:
            role = await ask(connection, "ROLE")
        except (OSError, RedisError):
            pass
        except BaseException:
            abort(connection)
            raise
        if role[0] != b"master":
            abort(connection)
        return bool(role[0] == b"master")

    async def _named_by(self, sentinel: tuple[str, int]) -> tuple[str, int]:
        connection = await self._opened(sentinel, is_sentinel=True)
        try:
            found = await ask(
                connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master
            )
        except (OSError, RedisError) as exc:
            raise unreachable(exc, self.shown) from None
        finally:
            abort(connection)
        if not found:
            raise self._away(f"the Sentinels know no master {self._address.master!r}")
        return found[0].decode(), int(found[1])

    def _away(self, problem: str) -> DriverUnavailableError:
        return DriverUnavailableError(driver=DRIVER, problem=f"{self.shown}: {problem}")

    async def _opened(
        self, host: tuple[str, int] | None, *, is_sentinel: bool = False
    ) -> Connection:
        connection = self._made(host, is_sentinel=is_sentinel)
        try:
            async with asyncio.timeout(CONNECTING):
                await connection.connect()
        except (OSError, EOFError, RedisError, ValueError) as exc:
            abort(connection)
            raise unreachable(_cause(exc), self.shown) from None  # its text may name a secret
        except BaseException:
            abort(connection)
            raise
        return connection

    def _made(self, host: tuple[str, int] | None, *, is_sentinel: bool) -> Connection:
        address = self._address
        login = address.sentinel_login if is_sentinel else address.login
        options: dict[str, Any] = {
            "db": 0 if is_sentinel else address.db, "protocol": 3,
            # Deadlines are ours: the client's way to have one swallows a cancellation (Python 3.11).
            "socket_timeout": None, "socket_connect_timeout": None,
            "client_name": None if is_sentinel else "taskflow", **login,
        }  # fmt: skip
        if host is None:
            return UnixDomainSocketConnection(path=address.path, **options)
        options |= {
            "host": host[0], "port": host[1], "socket_keepalive": True,
            "socket_keepalive_options": _KEEPALIVE,
        }  # fmt: skip
        if address.tls is not None:
            return SSLConnection(**options, **address.tls)
        return TcpConnection(**options)


def _cause(error: Exception) -> Exception:
    """What the server said, under what the client made of it."""
    for inner in error.args:
        if isinstance(inner, ResponseError):
            return inner
    return error
