"""Ends dead leases, whoever held them, in every worker: no leader is needed."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from taskflow import events
from taskflow.errors import DriverError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from taskflow._worker.runtime import Runtime

__all__ = ("Maintenance",)

logger = logging.getLogger("taskflow.worker")

BATCH: Final = 500
"""Leases ended, and jobs forgotten, by one call."""
KEEP_LEASES: Final = 10
"""Leases for which an ended job is kept at least, so that a call sent again is recognised."""


class Maintenance:
    """Ends dead leases and forgets jobs whose time is over.

    Scans a quarter of a lease apart, with jitter so that workers do not march in step.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Scan until cancelled."""
        port = self._runtime.port
        task_status.started()
        while True:
            await anyio.sleep(port.timing.beat * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
            try:
                await self._expire()
                await self._prune()
            except DriverError as exc:
                self._runtime.refusals.note("expire", exc)
            else:
                self._runtime.refusals.clear("expire")

    async def _expire(self) -> None:
        port = self._runtime.port
        expired = await port.persist("expire", lambda: port.expire(BATCH))
        if expired:
            logger.warning("%d lease(s) of dead workers ended; their jobs run again", len(expired))
            self._runtime.signal_work()
        for job_id in expired:
            port.emit(events.JobExpired(job_id=job_id))

    async def _prune(self) -> None:
        """In small batches, so that nobody's claim waits for it."""
        port = self._runtime.port
        keep = KEEP_LEASES * port.timing.lease
        while await port.persist("prune", lambda: port.prune(BATCH, keep)) == BATCH:
            await checkpoint()
