"""Who waits at a memory store, on whatever event loop, and what concerns them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from taskflow._core.records import Lane, Wait

__all__ = ("News", "Waiter", "Waiters")


class News:
    """What one step did that somebody may wait for."""

    __slots__ = ("finals", "work", "workers")

    def __init__(self) -> None:
        self.work: set[tuple[str, Lane]] = set()
        self.finals: list[str] = []
        self.workers: set[str] = set()


class Waiter:
    """One call of ``wait``; ``event`` lives on the caller's loop."""

    def __init__(self, request: Wait) -> None:
        self.request = request
        self.event = anyio.Event()
        self._native: Any = current_token().native_token

    def concerns(self, news: News) -> bool:
        """Whether the news may end this wait."""
        request = self.request
        if request.worker_id is not None and request.worker_id in news.workers:
            return True
        if request.ids and not request.ids.isdisjoint(news.finals):
            return True
        return any(
            lane in request.lanes and (request.others or queue in request.queues)
            for queue, lane in news.work
        )

    def wake(self) -> None:
        """Have the caller look again; from any thread, never blocks."""
        native = self._native
        post = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
        with suppress(RuntimeError):  # its loop is gone, and the caller with it
            post(self.event.set)


class Waiters:
    """The waiters of one store; changed and told under the store's lock or on one thread."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []

    def join(self, waiter: Waiter) -> None:
        """Tell it from now on."""
        self._waiters.append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Forget it."""
        self._waiters.remove(waiter)

    def tell(self, news: News) -> None:
        """Wake those whom it concerns."""
        for waiter in tuple(self._waiters):
            if waiter.concerns(news):
                waiter.wake()
