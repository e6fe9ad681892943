"""The slots of one lane: who runs next, and what waits for a slot."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from taskflow._core.outcomes import Released
from taskflow._core.records import Lane
from taskflow._worker.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from taskflow._worker.attempt import Attempt
    from taskflow._worker.lanes import Runner
    from taskflow._worker.runtime import Runtime
    from taskflow._worker.settler import Settler

__all__ = ("Pool",)

logger = logging.getLogger("taskflow.worker")

BURST: Final = 2
"""Bodies that begin together on the event loop; each that waits lets as many begin."""


class Pool:
    """One lane of one worker. Slots are started on demand and stay.

    Attributes:
        ready: Claimed, decoded by nobody yet, waiting for a slot.
        finished: How many attempts have ended here; the fetcher makes a rate of it.
        low: When so few are left in ``ready``, the fetcher is to look again, so that the next
            ones are under way while these run; -1 for never.
    """

    def __init__(
        self, lane: Lane, size: int, runtime: Runtime, settler: Settler, task_group: TaskGroup,
        make_runner: Callable[[], Runner],
    ) -> None:  # fmt: skip
        self.lane = lane
        self.size = size
        self.ready: deque[Attempt] = deque()
        self.finished = 0
        self.low = -1
        self.slots: list[Slot] = []
        self.idle: list[Slot] = []
        self._runtime = runtime
        self._settler = settler
        self._task_group = task_group
        self._make_runner = make_runner

    @property
    def free(self) -> int:
        """Slots that have nothing to do."""
        return self.size - len(self.slots) + len(self.idle)

    def put(self, attempt: Attempt) -> None:
        """Give a claimed job to the lane."""
        self.ready.append(attempt)

    def start_ready(self) -> None:
        """Hand what is ready to free slots, while the worker has room.

        On the event loop a few at a time: a body that waits lets the next ones begin, and those
        that never wait run one after another in one slot, which wakes nobody.
        """
        runtime = self._runtime
        left = BURST if self.lane is Lane.ASYNC else self.size
        while self.ready and left and runtime.room > 0 and (slot := self._free_slot()) is not None:
            left -= 1
            runtime.running += 1
            slot.give(self._take())

    def _take(self) -> Attempt:
        attempt = self.ready.popleft()
        if len(self.ready) == self.low:
            self._runtime.work.set()
        return attempt

    def _free_slot(self) -> Slot | None:
        if self.idle:
            return self.idle.pop()
        if len(self.slots) >= self.size or self._runtime.is_stopping:
            return None
        slot = Slot(self, self._runtime, self._settler, self._make_runner())
        self.slots.append(slot)
        self._task_group.start_soon(slot.supervise, name=f"{self.lane} slot {len(self.slots)}")
        return slot

    def next(self, slot: Slot) -> Attempt | None:
        """What the slot does next, now that its job has ended; ``None``: it is idle."""
        self.finished += 1
        runtime = self._runtime
        if self.ready:
            return self._take()
        self.idle.append(slot)
        runtime.running -= 1
        runtime.spread()
        runtime.work.set()
        return None

    def release_ready(self, older_than: float = float("inf")) -> int:
        """Hand back what has waited since before ``older_than`` (monotonic); returns how many."""
        count = 0
        while self.ready and self.ready[0].claimed_at < older_than:
            self._settler.finish(self.ready.popleft(), Released(started=False))
            count += 1
        return count
