"""What the services of one worker share. All of it lives on the event loop's thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio import CancelScope

from taskflow._core.records import Lane
from taskflow._worker.isolation import CleanContext, Stepping
from taskflow._worker.refusals import Refusals

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping

    from taskflow._port import Port
    from taskflow._worker.attempt import Attempt
    from taskflow.app import App
    from taskflow.config import Config

__all__ = ("LanePool", "Runtime")


class LanePool(Protocol):
    """What services know of a lane's pool."""

    lane: Lane
    size: int
    ready: deque[Attempt]
    finished: int
    low: int
    slots: list[Any]

    @property
    def free(self) -> int:
        """Slots that have nothing to do."""
        ...

    def put(self, attempt: Attempt) -> None:
        """Give a claimed job to the lane."""
        ...

    def start_ready(self) -> None:
        """Hand what is ready to free slots, while the worker has room."""
        ...

    def release_ready(self, older_than: float = ...) -> int:
        """Hand back what has waited too long."""
        ...


class Runtime:
    """One worker's shared state.

    Attributes:
        refusals: What the store refuses now, other than for being away.
        held: Every lease that this worker holds, by job id, from claim until it is settled.
        work: Set when there may be something to claim.
        wakes: Counts what set ``work``; a claim that came back short proves nothing about
            what was enqueued after it began.
        hungry: Lanes with free slots for which the last claim found nothing more.
        waiting: The scope of the wait at the store, which starts over when ``hungry`` changes.
        is_draining: Nothing new is claimed or started.
        is_stopping: Slots end.
        abandoned: Set at the end of a shutdown; threads that have not ended are left behind.
    """

    def __init__(
        self, app: App[Any], port: Port, config: Config, *, worker_id: str, queues: tuple[str, ...],
        others: bool, state: Any,
    ) -> None:  # fmt: skip
        self.app = app
        self.port = port
        self.config = config
        self.worker_id = worker_id
        self.queues = queues
        self.others = others
        self.state = state
        self.clean = CleanContext()
        self.stepping = Stepping()
        self.refusals = Refusals()
        self.held: dict[str, Attempt] = {}
        self.pools: Mapping[Lane, LanePool] = {}
        self.running = 0
        self.hungry: frozenset[Lane] = frozenset()
        self.waiting: CancelScope | None = None
        self.work = anyio.Event()
        self.wakes = 0
        self.idle = anyio.Event()
        self.is_draining = False
        self.is_stopping = False
        self.abandoned = anyio.Event()
        self.turn_began = time.monotonic()

    @property
    def room(self) -> int:
        """How many more jobs may run now, over all lanes."""
        return self.config.concurrency - self.running

    def signal_work(self) -> None:
        """Have the fetcher look again."""
        self.wakes += 1
        self.hungry = frozenset()
        self.work.set()

    def set_hungry(self, lanes: frozenset[Lane]) -> None:
        """Say for which lanes a job that becomes due is news."""
        if lanes != self.hungry:
            self.hungry = lanes
            if self.waiting is not None:
                self.waiting.cancel()

    def body_waits(self) -> None:
        """A body on the event loop waits: others may begin meanwhile."""
        self.pools[Lane.ASYNC].start_ready()

    def spread(self) -> None:
        """Start what is ready in any lane, as far as there is room over all."""
        for pool in self.pools.values():
            pool.start_ready()
        if self.is_draining and not self.running:
            self.idle.set()
