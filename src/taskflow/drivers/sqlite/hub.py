"""Who waits for what on one store, in this process and beside it.

Inside the process, waiters are told directly. Other processes are told by one datagram each: every
driver that waits has a socket in a folder beside the database. A datagram is a hint; one that is
lost costs the waiter its timeout and nothing else.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import current_token

from taskflow._core.records import Wake
from taskflow.drivers.sqlite.news import News
from taskflow.drivers.sqlite.writer import post

if TYPE_CHECKING:
    from taskflow._core.records import Wait

__all__ = ("Hub", "Mailbox", "Waiter", "has_mailboxes")

_ENOUGH: Final = 8
"""Datagrams read at once from which on some may have been dropped (the kernel queues ten)."""


def has_mailboxes() -> bool:
    """Whether this system has Unix sockets and a /proc to reach them by descriptor."""
    return hasattr(socket, "AF_UNIX") and Path("/proc/self/fd").is_dir()


class Waiter:
    """One call that waits. Its fields change under the hub's lock only.

    Attributes:
        event: Set, on the waiter's own loop, when one of the fields below changed.
        wake: What it was waiting for.
        is_to_look: Something may have happened: look at the store.
        is_closed: Its driver is closed.
    """

    def __init__(self, request: Wait) -> None:
        self.request = request
        self.event = anyio.Event()
        self.wake: Wake | None = None
        self.is_to_look = False
        self.is_closed = False
        self._native: Any = current_token().native_token

    def tell(self, news: News) -> None:
        """Take in news, if it means anything to this waiter."""
        answer = news.answer(self.request)
        if answer is not None:
            self.wake = _joined(self.wake, answer)
        elif news.is_cut:
            self.is_to_look = True
        else:
            return
        self.nudge()

    def nudge(self) -> None:
        """Make the call look at its fields; from any thread."""
        # The event may be another one by the time the loop gets to it.
        post(self._native, lambda: self.event.set())


def _joined(one: Wake | None, other: Wake) -> Wake:
    if one is None:
        return other
    return Wake(
        work=one.work or other.work, finals=one.finals | other.finals,
        cancels=one.cancels or other.cancels,
    )  # fmt: skip


class Hub:
    """Spreads the news of one store.

    Args:
        folder: Where the mailboxes of all processes are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._waiters: set[Waiter] = set()
        self._own: set[str] = set()

    def join(self, waiter: Waiter) -> None:
        """Tell this waiter from now on."""
        with self._lock:
            self._waiters.add(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Forget it."""
        with self._lock:
            self._waiters.discard(waiter)

    def own(self, name: str) -> None:
        """A mailbox of this process: its waiters are told directly."""
        with self._lock:
            self._own.add(name)

    def disown(self, name: str) -> None:
        """The mailbox is gone."""
        with self._lock:
            self._own.discard(name)

    def tell(self, news: News) -> None:
        """Tell the waiters of this process, from any thread."""
        with self._lock:
            for waiter in self._waiters:
                waiter.tell(news)

    def publish(self, news: News) -> None:
        """Tell everybody, from the writer's thread; never raises, never waits."""
        self.tell(news)
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return  # nobody has ever waited here
        try:
            with self._lock:
                others = [name for name in os.listdir(folder) if name not in self._own]
            if others:
                _send(folder, others, news.encode())
        except OSError:
            pass
        finally:
            os.close(folder)


def _send(folder: int, names: list[str], data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for name in names:
            try:
                sender.sendto(data, f"/proc/self/fd/{folder}/{name}")
            except ConnectionRefusedError:
                # Its process died without tidying up.
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)
            except OSError:
                pass


class Mailbox:
    """The socket by which other processes wake this driver.

    It is bound through a descriptor of its folder: a socket's own address holds 107 bytes.

    Raises:
        OSError: The folder or the socket cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self.socket.setblocking(False)
            self.socket.bind(f"/proc/self/fd/{self._folder}/{self.name}")
        except BaseException:
            self.close()
            raise

    def read(self) -> News:
        """Everything that has arrived, as one."""
        news = News()
        count = 0
        with suppress(BlockingIOError):
            while count < 64:
                news.add(News.decode(self.socket.recv(65_536)))
                count += 1
        news.is_cut |= count >= _ENOUGH
        return news

    def close(self) -> None:
        """Close and remove the socket."""
        self.socket.close()
        with suppress(OSError):
            os.unlink(self.name, dir_fd=self._folder)
        os.close(self._folder)
