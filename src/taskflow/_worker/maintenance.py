"""Ends dead leases, whoever held them, in every worker: no leader is needed."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final

import anyio

from taskflow import events
from taskflow.errors import DriverError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from taskflow._worker.runtime import Runtime

__all__ = ("Maintenance",)

logger = logging.getLogger("taskflow.worker")

BATCH: Final = 500
"""Leases ended by one call."""


class Maintenance:
    """Scans a quarter of a lease apart, with jitter so that workers do not march in step."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Scan until cancelled."""
        port = self._runtime.port
        task_status.started()
        while True:
            await anyio.sleep(port.timing.beat * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
            try:
                expired = await port.persist("expire", lambda: port.expire(BATCH))
            except DriverError:
                logger.exception("the scan for dead leases failed")
                continue
            if expired:
                logger.warning("%d lease(s) of dead workers ended; their jobs run again",
                               len(expired))  # fmt: skip
                self._runtime.signal_work()
            for job_id in expired:
                port.emit(events.JobExpired(job_id=job_id))
