"""A TCP proxy that breaks connections in the ways in which networks do.

What it does to a connection is asked for each piece that passes, so a fault can be meant for some
connections only, for those that come later too, and be taken back.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio import CancelScope
from anyio.abc import SocketAttribute, SocketStream, TaskGroup, TaskStatus

from tests.drivers.servers import free_port

__all__ = ("COMMITS", "Link", "Proxy", "everyone", "listeners", "proxied")

COMMITS = (b"S\x00\x00\x00\x04", b"EVALSHA")
"""What a request contains that changes something: PostgreSQL's Sync, or a script of Redis."""
WHOLE = 1 << 20
_RESET = struct.pack("ii", 1, 0)
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


class Link:
    """One connection through the proxy."""

    def __init__(self, client: SocketStream, server: SocketStream) -> None:
        self.client, self.server = client, server
        self.asked = bytearray()
        """What the client has sent."""
        self.loses = False
        """The next answer is swallowed, and the connection cut."""

    @property
    def listens(self) -> bool:
        """It waits for news."""
        return b"SUBSCRIBE" in self.asked or b"LISTEN" in self.asked

    async def cut(self) -> None:
        """Reset both sides: what is on its way is lost."""
        for stream in (self.client, self.server):
            with suppress(*_BROKEN):
                raw = stream.extra(SocketAttribute.raw_socket)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            await anyio.aclose_forcefully(stream)


Which = Callable[[Link], bool]


def everyone(_: Link) -> bool:
    return True


def listeners(link: Link) -> bool:
    return link.listens


def nobody(_: Link) -> bool:
    return False


class Proxy:
    """Stands before one server. Lives in a task group of the test's own.

    Args:
        url: Of the server, which listens on the loopback address.
    """

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self.port = free_port()
        self.links: set[Link] = set()
        self.lost = 0
        """Answers that were swallowed."""
        self.accepted = 0
        """Connections so far."""
        self._silent: Which = nobody
        self._cuts: Which = nobody
        self._healed = anyio.Event()
        self._loses = False
        self._size = WHOLE
        self._is_refusing = False
        self._is_closed = anyio.Event()
        self._group: TaskGroup | None = None

    @property
    def url(self) -> str:
        """The server's, by way of this proxy."""
        user, at, _ = self._to.netloc.rpartition("@")
        return urlunsplit(self._to._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    # ---- faults

    async def cut(self, which: Which = everyone) -> int:
        """Reset connections now; returns how many."""
        cut = [link for link in self.links if which(link)]
        for link in cut:
            await link.cut()
        return len(cut)

    def cut_always(self, which: Which = everyone) -> None:
        """Reset connections as soon as they say something, from now on."""
        self._cuts = which

    def silence(self, which: Which = everyone) -> None:
        """Accept, and pass nothing on from now, without closing anything."""
        self._silent = which

    def lose_reply(self) -> None:
        """Pass on the next request that changes something, swallow its answer and cut."""
        self._loses = True

    def slice(self) -> None:
        """Pass on every answer byte by byte."""
        self._size = 1

    async def refuse(self) -> None:
        """Reset everything, and be no more there for new connections."""
        self._is_refusing = True
        # Not by a cancellation: asyncio (Python 3.11) fails where one meets a new connection.
        async with await anyio.connect_tcp("127.0.0.1", self.port):
            await self._is_closed.wait()
        await self.cut()

    async def heal(self) -> None:
        """Pass on everything, what was held back too; be there again."""
        self._silent = self._cuts = nobody
        self._loses, self._size = False, WHOLE
        self._healed.set()
        self._healed = anyio.Event()
        if self._is_refusing:
            await self._start()

    # ---- serving

    async def _start(self) -> None:
        assert self._group is not None
        self._is_refusing, self._is_closed = False, anyio.Event()
        await self._group.start(self._serve)

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        assert self._group is not None
        both = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port)
        async with both:
            task_status.started()
            listener: Any = both.listeners[0]
            async for client in self._clients(listener):
                self._group.start_soon(self._handle, client)
        self._is_closed.set()

    async def _clients(self, listener: Any) -> AsyncIterator[SocketStream]:
        while True:
            client = await listener.accept()
            if self._is_refusing:
                await anyio.aclose_forcefully(client)
                return
            yield client

    async def _handle(self, client: SocketStream) -> None:
        self.accepted += 1
        async with client:
            assert self._to.port is not None
            with suppress(*_BROKEN):
                async with await anyio.connect_tcp("127.0.0.1", self._to.port) as server:
                    await self._join(Link(client, server))

    async def _join(self, link: Link) -> None:
        self.links.add(link)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._pump, link, link.client, link.server, group.cancel_scope)
                group.start_soon(self._pump, link, link.server, link.client, group.cancel_scope)
        finally:
            self.links.discard(link)

    async def _pump(
        self, link: Link, source: SocketStream, target: SocketStream, both: CancelScope
    ) -> None:
        with suppress(*_BROKEN):
            async for piece in source:
                if source is link.client:
                    self._note(link, piece)
                elif link.loses:
                    self.lost += 1
                    await link.cut()
                if self._cuts(link):
                    await link.cut()
                while self._silent(link):
                    await self._healed.wait()
                size = self._size if target is link.client else WHOLE
                for begin in range(0, len(piece), size):
                    await target.send(piece[begin : begin + size])
        both.cancel()

    def _note(self, link: Link, piece: bytes) -> None:
        link.asked += piece
        if self._loses and any(word in piece for word in COMMITS):
            self._loses, link.loses = False, True

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve until cancelled."""
        async with anyio.create_task_group() as self._group:
            await self._start()
            task_status.started()
            await anyio.sleep_forever()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy before a server, for as long as the block lasts."""
    proxy = Proxy(url)
    async with anyio.create_task_group() as group:
        await group.start(proxy.run)
        try:
            yield proxy
            if not proxy._is_refusing:
                await proxy.refuse()
        finally:
            group.cancel_scope.cancel()
