"""Telling other processes what happened: after the commit, together, and not too often.

A NOTIFY takes a lock of the whole database at its commit, so none is sent within our transactions
that store jobs, and there is at most one from each process in ``GAP``. Only what is stored within a
caller's own transaction is announced by that one: nobody else learns of its commit.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from taskflow.drivers.postgres.rows import ANYTHING, ITEM, LONGEST
from taskflow.errors import DriverError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskflow.drivers.postgres.client import Client

__all__ = ("Notifier",)

GAP: Final = 0.05
"""Seconds between two notifications of one process."""
_SEND: Final = "SELECT pg_notify($1, $2)"


class Notifier:
    """Used on one asyncio loop.

    Args:
        client: Sends.
        channel: Whom to.
        tell: Is told at once, in this process.
        is_on: Other processes are told.
    """

    def __init__(
        self, client: Client, channel: str, tell: Callable[[Iterable[str]], None], *, is_on: bool
    ) -> None:
        self._client, self._channel, self._tell, self._is_on = client, channel, tell, is_on
        self._pending: set[str] = set()
        self._sent_at = 0.0
        self._sender: asyncio.Task[None] | None = None

    def announce(self, items: Iterable[str]) -> None:
        """Pass on news; returns at once."""
        news = set(items)
        news.discard("")
        if not news:
            return
        self._tell(news)
        if self._is_on:
            self._pending |= news
            if self._sender is None:
                self._sender = asyncio.get_running_loop().create_task(self._send_in_time())

    async def _send_in_time(self) -> None:
        try:
            while self._pending:
                await asyncio.sleep(max(self._sent_at + GAP - time.monotonic(), 0))
                await self._send()
        finally:
            self._sender = None

    async def _send(self) -> None:
        news, self._pending = self._pending, set()
        self._sent_at = time.monotonic()
        payload = ITEM.join(news)
        if len(payload.encode()) > LONGEST:
            payload = ANYTHING
        with suppress(DriverError):  # only a hint: whoever waits looks for himself, too
            await self._client.rows(_SEND, self._channel, payload)

    async def aclose(self, timeout: float) -> None:
        """Send what is left; there is no sender afterwards."""
        sender = self._sender
        if sender is not None:
            sender.cancel()
            await asyncio.wait([sender])
        if self._pending:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._send()
