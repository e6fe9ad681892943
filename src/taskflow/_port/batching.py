"""Natural batching without a background task: callers lead and follow.

While one call is under way, later callers gather; when it returns, one of them leads the next
batch. An idle caller goes out at once, alone. So latency stays that of one round trip and
throughput that of batches, with no timer.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from taskflow.errors import StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

__all__ = ("Batcher",)

TURNS: Final = 2
"""Checkpoints after which everybody has run who was woken before; on trio their order is drawn."""


class _Entry(Generic[T, R]):
    """One waiting caller. ``woken`` says: look again; you have an answer or shall lead.

    ``is_alone`` says: send it by yourself. ``is_gone`` says that the caller was cancelled: nobody
    is left to be woken.
    """

    __slots__ = ("error", "is_alone", "is_gone", "item", "result", "woken")

    def __init__(self, item: T) -> None:
        self.item = item
        self.is_alone = False
        self.is_gone = False
        self.woken: anyio.Event | None = None
        self.result: R | None = None
        self.error: BaseException | None = None


class Batcher(Generic[T, R]):
    """Turns concurrent single calls into batches.

    Args:
        send: Makes one call for many items; positional replies, safe to send again.
        max_batch: The most items in one call.
        alone: Makes the call for one item of a batch that raised ``StoreBusyError``: one of them
            has to wait for somebody's transaction, and the others shall not wait with it.
    """

    def __init__(
        self, send: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, max_batch: int,
        alone: Callable[[Sequence[T]], Awaitable[Sequence[R]]] | None = None,
    ) -> None:  # fmt: skip
        self._send = send
        self._alone = send if alone is None else alone
        self._max_batch = max_batch
        self._queue: deque[_Entry[T, R]] = deque()
        self._is_led = False
        self._make_event: Callable[[], anyio.Event] | None = None

    async def submit(self, item: T) -> R:
        """Send one item, perhaps together with others; returns its reply.

        Cancellation: the item was sent or not. Callers whose leader was cancelled in the middle
        of a call send again: the call must be safe to repeat.
        """
        entry: _Entry[T, R] = _Entry(item)
        self._queue.append(entry)
        while entry.result is None and entry.error is None:
            if entry.is_alone:
                (entry.result,) = await self._alone([item])
            elif self._is_led:
                await self._follow(entry)
            else:
                await self._lead(entry)
        if entry.error is not None:
            raise entry.error
        assert entry.result is not None
        return entry.result

    async def _follow(self, entry: _Entry[T, R]) -> None:
        if self._make_event is None:
            # This event loop's own class: Event() looks it up each time, at twice the price.
            self._make_event = type(anyio.Event())
        entry.woken = self._make_event()
        try:
            await entry.woken.wait()
        except BaseException:
            entry.is_gone = True  # it may be in the batch under way, and must not come back
            if entry in self._queue:
                self._queue.remove(entry)
            self._wake_next()
            raise

    async def _lead(self, mine: _Entry[T, R]) -> None:
        self._is_led = True
        batch: list[_Entry[T, R]] = []
        try:
            for _ in range(TURNS):  # those who had their answers with mine come along
                await checkpoint()
            count = min(self._max_batch, len(self._queue))
            batch += [self._queue.popleft() for _ in range(count)]
            results = await self._send([entry.item for entry in batch])
            answered = list(zip(batch, results, strict=True))
        except StoreBusyError:
            for entry in batch:
                entry.is_alone = True
        except Exception as exc:
            for entry in batch:
                entry.error = exc
        except BaseException:
            # Cancelled in the middle: the others' items go out again, first in line.
            mine.is_gone = True
            self._queue.extendleft(entry for entry in reversed(batch) if not entry.is_gone)
            if mine in self._queue:
                self._queue.remove(mine)
            raise
        else:
            for entry, result in answered:
                entry.result = result
        finally:
            self._is_led = False
            for entry in batch:
                if entry.woken is not None:
                    entry.woken.set()
            self._wake_next()

    def _wake_next(self) -> None:
        if not self._is_led and self._queue and (woken := self._queue[0].woken) is not None:
            woken.set()
