"""``Driver.wait``: look once, then sleep until somebody tells.

All waits of a driver share one mailbox. One of them reads it and passes on what it says; when that
one leaves, another takes over, so nothing runs while nobody waits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio

from taskflow._core.records import Wait, Wake
from taskflow.drivers.sqlite.faults import closed
from taskflow.drivers.sqlite.hub import Hub, Mailbox, Waiter, has_mailboxes
from taskflow.drivers.sqlite.manage import glance
from taskflow.drivers.sqlite.news import News

if TYPE_CHECKING:
    from taskflow.drivers.sqlite.tx import Tx
    from taskflow.drivers.sqlite.writer import Writer

__all__ = ("Waits",)

POLL: Final = 0.05
"""Seconds between looks at the file's version where there are no mailboxes."""


class Waits:
    """The waits of one open driver.

    Args:
        writer: Answers questions to the store.
        hub: Tells what happens.
        path: The database, for messages.
    """

    def __init__(self, writer: Writer, hub: Hub, path: str) -> None:
        self._writer, self._hub, self._path = writer, hub, path
        self._mine: list[Waiter] = []
        self._mailbox: Mailbox | None = None
        self._polls = not has_mailboxes()
        self._is_led = False

    async def wait(self, request: Wait) -> Wake:
        """See ``Driver.wait``."""
        deadline = time.monotonic() + request.timeout
        self._bind()
        waiter = Waiter(request)
        self._mine.append(waiter)
        self._hub.join(waiter)
        try:
            wake = await self._look(request)
            while wake is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return Wake()
                with anyio.move_on_after(left):
                    await self._told_something(waiter)
                wake = await self._heard(waiter)
            return wake
        finally:
            self._hub.leave(waiter)
            self._mine.remove(waiter)
            self._hand_over()

    def close(self) -> None:
        """End every wait with an error and remove the mailbox."""
        for waiter in self._mine:
            waiter.is_closed = True
            waiter.event.set()
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            if self._is_led:
                anyio.notify_closing(mailbox.socket)
            mailbox.close()
            self._hub.disown(mailbox.name)

    def _bind(self) -> None:
        if self._mailbox is not None or self._polls:
            return
        try:
            self._mailbox = Mailbox(self._hub.folder)
        except OSError:
            self._polls = True
        else:
            self._hub.own(self._mailbox.name)

    async def _look(self, request: Wait) -> Wake | None:
        """Ask the store."""
        wake = await self._writer.call(lambda tx: glance(tx, request), writes=False)
        return wake if wake.work or wake.finals or wake.cancels else None

    async def _heard(self, waiter: Waiter) -> Wake | None:
        """What the waiter was told, once its event is set."""
        if waiter.is_closed:
            raise closed(self._path)
        if waiter.wake is not None:
            return waiter.wake
        if waiter.is_to_look:
            waiter.is_to_look = False
            waiter.event = anyio.Event()
            return await self._look(waiter.request)
        return None

    async def _told_something(self, waiter: Waiter) -> None:
        while not (waiter.wake or waiter.is_to_look or waiter.is_closed):
            if waiter.event.is_set():
                waiter.event = anyio.Event()
            elif self._is_led:
                await waiter.event.wait()
            else:
                await self._lead(waiter)

    async def _lead(self, waiter: Waiter) -> None:
        """Read the mailbox for all until this waiter is told something."""
        self._is_led = True
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read)
                await waiter.event.wait()
                group.cancel_scope.cancel()
        finally:
            self._is_led = False

    def _hand_over(self) -> None:
        if not self._is_led and self._mine:
            self._mine[0].event.set()

    async def _read(self) -> None:
        mailbox = self._mailbox
        if mailbox is None:
            await self._poll()
            return
        try:
            while True:
                await anyio.wait_readable(mailbox.socket)
                self._hub.tell(mailbox.read())
        except (OSError, ValueError, anyio.ClosedResourceError):
            # Closed under us, or a broken socket: the timeouts are still there.
            return

    async def _poll(self) -> None:
        seen = await self._writer.call(_version, writes=False)
        while True:
            await anyio.sleep(POLL)
            found = await self._writer.call(_version, writes=False)
            if found != seen:
                seen = found
                self._hub.tell(News(is_cut=True))


def _version(tx: Tx) -> int:
    return int(tx.run("PRAGMA data_version").fetchone()[0])
