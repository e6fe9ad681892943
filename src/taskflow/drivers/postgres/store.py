"""What the operations of one open driver share; lives on one asyncio loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow.drivers.postgres.client import Client
from taskflow.drivers.postgres.health import examine
from taskflow.drivers.postgres.news import Notifier
from taskflow.drivers.postgres.schema import check_schema
from taskflow.drivers.postgres.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskflow.drivers.postgres.names import Names
    from taskflow.drivers.postgres.pool import Connection, Server

__all__ = ("Store",)

CLOSING: Final = 2.0
"""Seconds that each step of a close may take."""


class Store:
    """Connections, names and news of one store.

    Args:
        server: Where it is.
        names: Its tables.
        shift: Microseconds by which the server's time is shifted.
        least, most: Size of the pool.
        notifies: Others are told, and listened to.

    Attributes:
        channel: Where others listen; ``None`` when they are not told.
        shown: Where it is, without any secret.
    """

    def __init__(
        self, server: Server, names: Names, shift: Callable[[], int], *, least: int, most: int,
        notifies: bool,
    ) -> None:  # fmt: skip
        self.names, self.shift = names, shift
        self.channel = names.channel if notifies else None
        self.shown = server.shown
        self._filled: dict[str, str] = {}
        self._client = Client(server, least=least, most=most)
        self.waits = Waits(self._client, server, names, shift, listens=notifies)
        self._notifier = Notifier(self._client, names.channel, self.waits.tell, is_on=notifies)

    async def open(self) -> None:
        """Connect and look whether this is a store for us.

        Raises:
            StoreRefusedError: The server is too old, read-only or of another encoding.
            SchemaMismatchError: The tables are missing or of another version.
        """
        await self._client.run(self._examine)

    async def _examine(self, connection: Connection) -> None:
        await examine(connection)
        await check_schema(connection, self.names)

    async def run(self, work: Callable[[Connection], Any]) -> Any:
        """Work with a connection; see ``Client.run``."""
        return await self._client.run(work)

    async def rows(self, statement: str, *args: Any) -> list[Any]:
        """The rows of a statement, in which the placeholders of ``Names`` may stand."""
        return await self._client.rows(self.filled(statement), *args)

    def filled(self, statement: str) -> str:
        """The statement without placeholders."""
        filled = self._filled.get(statement)
        if filled is None:
            filled = self._filled[statement] = self.names.fill(statement)
        return filled

    async def row(self, statement: str, *args: Any) -> Any:
        """Its only row."""
        return (await self.rows(statement, *args))[0]

    def announce(self, items: Iterable[str]) -> None:
        """Tell whom it concerns, here and elsewhere."""
        self._notifier.announce(items)

    async def aclose(self) -> None:
        """Send what is left to say and close every connection."""
        self.waits.close()
        await self._notifier.aclose(CLOSING)
        await self._client.aclose(CLOSING)
