"""Puts the lanes of one worker together."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Final, Never

from anyio.lowlevel import current_token

from taskflow._core.outcomes import Failed
from taskflow._core.records import ErrorInfo, Lane
from taskflow._core.registry import registry
from taskflow._worker.lanes.async_ import AsyncLane
from taskflow._worker.lanes.process import ProcessSettings, ProcessSlot
from taskflow._worker.lanes.thread import ThreadSlot
from taskflow._worker.pool import Pool
from taskflow._worker.posting import backend_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from taskflow._core.outcomes import Outcome
    from taskflow._worker.attempt import Attempt
    from taskflow._worker.lanes import Runner
    from taskflow._worker.runtime import Runtime
    from taskflow._worker.settler import Settler

__all__ = ("ProcessRunner", "kill_all", "leave_process", "make_pools")


class ProcessRunner:
    """A slot of the process lane, in the shape that slots know."""

    def __init__(self, slot: ProcessSlot, cancel_grace: float) -> None:
        self._slot = slot
        self._cancel_grace = cancel_grace

    async def run(self, attempt: Attempt) -> Outcome | None:
        """Run the body in the slot's child process."""
        return await self._slot.run(attempt)

    async def failed(self, attempt: Attempt) -> None:
        """Run the ``failed`` hook in the child."""
        outcome = attempt.outcome
        error = outcome.error if isinstance(outcome, Failed) else ErrorInfo("JobFailedError", "")
        await self._slot.run_failed(attempt, error, self._cancel_grace)

    async def aclose(self) -> None:
        """End the child."""
        await self._slot.aclose(self._cancel_grace)

    def kill(self) -> None:
        """End the child at once; from any thread."""
        self._slot.kill()


def make_pools(
    runtime: Runtime, settler: Settler, slots: TaskGroup, runners: list[ProcessRunner]
) -> Mapping[Lane, Pool]:
    """A pool for each lane that a registered task uses; the async lane is always there.

    A job of a lane that no task here uses is left for other workers.
    """
    config = runtime.config
    used = {definition.lane for definition in registry} | {Lane.ASYNC}
    sizes: Final = {
        Lane.ASYNC: config.concurrency,
        Lane.THREAD: min(config.threads or config.concurrency, config.concurrency),
        Lane.PROCESS: min(config.process_slots or os.cpu_count() or 1, config.concurrency),
    }
    makers: Mapping[Lane, Callable[[], Runner]] = {
        Lane.ASYNC: lambda: AsyncLane(
            runtime.clean, runtime.stepping, runtime.app.codec, config.max_result
        ),
        Lane.THREAD: lambda: ThreadSlot(
            runtime.clean, runtime.app.codec, max_result=config.max_result,
            cancel_grace=config.cancel_grace, abandoned=runtime.abandoned,
        ),
        Lane.PROCESS: lambda: _process_runner(runtime, runners),
    }  # fmt: skip
    return {
        lane: Pool(lane, sizes[lane], runtime, settler, slots, makers[lane])
        for lane in Lane
        if lane in used
    }


def _process_runner(runtime: Runtime, runners: list[ProcessRunner]) -> ProcessRunner:
    config, lifespan = runtime.config, runtime.app.lifespan
    settings = ProcessSettings(
        backend=backend_of(current_token()), cancel_grace=config.cancel_grace,
        max_jobs=config.process_max_jobs, max_memory=config.process_max_memory,
        env=config.process_env,
        lifespan=None if lifespan is None else f"{lifespan.__module__}:{lifespan.__qualname__}",
        max_result=config.max_result, worker_id=runtime.worker_id,
    )  # fmt: skip
    runner = ProcessRunner(ProcessSlot(settings, enqueue=runtime.port.enqueue), config.cancel_grace)
    runners.append(runner)
    return runner


def kill_all(runners: Sequence[ProcessRunner]) -> None:
    """End every process child at once; from any thread."""
    for runner in runners:
        runner.kill()


def leave_process(code: int, runners: Sequence[ProcessRunner]) -> Never:
    """End this process although a body ignores its cancellation and holds the event loop."""
    kill_all(runners)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
