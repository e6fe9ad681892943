"""Reports bodies on the event loop that go on although they were cancelled.

Such a body keeps its slot and its lease: nothing else can be done to it while its loop lives.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio

from taskflow._worker.stacks import stack_of

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from taskflow._worker.attempt import Attempt
    from taskflow._worker.runtime import Runtime

__all__ = ("Stuck",)

logger = logging.getLogger("taskflow.worker")

PAUSE: Final = 1.0
"""Seconds between two looks."""


class Stuck:
    """Looks, once a second, whether a cancelled body has outlived ``cancel_grace``."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reported: set[int] = set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled."""
        task_status.started()
        while True:
            await anyio.sleep(PAUSE)
            now = anyio.current_time()
            stuck = [one for one in self._runtime.held.values() if self._is_stuck(one, now)]
            for attempt in stuck:
                if id(attempt) not in self._reported:
                    self._report(attempt)
            self._reported = {id(attempt) for attempt in stuck}

    def _is_stuck(self, attempt: Attempt, now: float) -> bool:
        if attempt.coroutine is None or attempt.is_settling:
            return False
        cancelled_at = min(attempt.scope.deadline, attempt.stopped_at)
        return now > cancelled_at + self._runtime.config.cancel_grace

    @staticmethod
    def _report(attempt: Attempt) -> None:
        logger.warning(
            "%s %s ignores its cancellation; its slot and lease are kept until it ends:\n%s",
            attempt.kind, attempt.id, stack_of(attempt.coroutine),
            extra={"job_id": attempt.id},
        )  # fmt: skip
