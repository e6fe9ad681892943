"""Four phases, each with a deadline: stop claiming, wait, stop bodies, release and close."""

from __future__ import annotations

import logging
import math
import os
import signal
from typing import TYPE_CHECKING, Final

import anyio

from taskflow import events
from taskflow._worker.attempt import StopReason
from taskflow._worker.stacks import stack_of

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from taskflow._worker.runtime import Runtime
    from taskflow._worker.settler import Settler

__all__ = ("Shutdown",)

logger = logging.getLogger("taskflow.worker")

FLUSH_TIMEOUT: Final = 5.0
"""Seconds that the last outcomes may take to be stored."""


class Shutdown:
    """Ends a worker in order. ``ask`` may be called any number of times."""

    def __init__(self, runtime: Runtime, settler: Settler) -> None:
        self._runtime = runtime
        self._settler = settler
        self._asked = anyio.Event()
        self._hurry = anyio.Event()
        self.abandoned = 0

    def ask(self, *, grace: float | None = None) -> None:
        """Begin, or with ``grace`` 0 skip the wait for running jobs."""
        if grace == 0:
            self._hurry.set()
        self._asked.set()

    async def asked(self) -> None:
        """Return when a shutdown was asked for."""
        await self._asked.wait()

    async def run_signals(
        self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """SIGTERM and SIGINT: the first one drains, the second skips the wait, the third exits."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            count = 0
            async for number in signals:
                count += 1
                name = signal.Signals(number).name
                if count == 1:
                    logger.info("%s: finishing %d running job(s); again to stop them now", name,
                                self._runtime.running)  # fmt: skip
                    self.ask()
                elif count == 2:
                    logger.info("%s again: stopping running jobs", name)
                    self.ask(grace=0)
                else:
                    os._exit(1)

    async def perform(self) -> None:
        """All four phases; returns when everything is settled, released or left behind."""
        runtime, config = self._runtime, self._runtime.config
        runtime.is_draining = True
        runtime.work.set()
        runtime.port.emit(
            events.WorkerDraining(worker_id=runtime.worker_id, running=runtime.running)
        )
        for pool in runtime.pools.values():
            pool.release_ready()
        await self._wait_idle(config.grace, self._hurry)
        running = [a for a in runtime.held.values() if not a.is_settling]
        for attempt in running:
            attempt.stop(StopReason.SHUTDOWN)
        if running:
            logger.info("stopping %d job(s); they are handed back", len(running))
        await self._wait_idle(config.cancel_grace + 1.0, None)
        self._leave_behind()
        await self.flush()

    async def flush(self) -> None:
        """Give the outcomes that are there some time to be stored."""
        with anyio.move_on_after(FLUSH_TIMEOUT):
            await self._settler.flushed()

    async def _wait_idle(self, seconds: float, hurry: anyio.Event | None) -> None:
        runtime = self._runtime
        runtime.idle = anyio.Event()
        if not runtime.running:
            return
        async with anyio.create_task_group() as task_group:

            async def stop_when(event: anyio.Event) -> None:
                await event.wait()
                task_group.cancel_scope.cancel()

            task_group.start_soon(stop_when, runtime.idle)
            if hurry is not None:
                task_group.start_soon(stop_when, hurry)
            task_group.cancel_scope.deadline = anyio.current_time() + min(seconds, math.inf)

    def _leave_behind(self) -> None:
        """What ignored its cancellation: its lease is renewed no more and runs out by itself."""
        runtime = self._runtime
        stuck = [a for a in runtime.held.values() if a.began and not a.is_settling]
        self.abandoned = len(stuck)
        for attempt in stuck:
            stack = stack_of(attempt.coroutine)
            logger.error(
                "%s %s ignored its cancellation; it will run again when its lease has run out%s",
                attempt.kind, attempt.id, stack and f"\n{stack}",
                extra={"job_id": attempt.id},
            )  # fmt: skip
            del runtime.held[attempt.id]
        runtime.is_stopping = True
        runtime.abandoned.set()
        for pool in runtime.pools.values():
            for slot in pool.slots:
                slot.wake()
