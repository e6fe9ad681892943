"""Puts the lanes of one worker together."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final, Never

from anyio.lowlevel import current_token

from taskflow._core.codec import MsgpackCodec
from taskflow._core.outcomes import Failed
from taskflow._core.records import ErrorInfo, Lane
from taskflow._core.registry import registry
from taskflow._worker.lanes.async_ import AsyncLane
from taskflow._worker.lanes.classify import error_info
from taskflow._worker.lanes.process import ProcessSettings, ProcessSlot
from taskflow._worker.lanes.thread import ThreadSlot
from taskflow._worker.pool import Pool
from taskflow._worker.posting import backend_of
from taskflow.errors import ConfigError, TaskDefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from taskflow._core.outcomes import Outcome
    from taskflow._worker.attempt import Attempt
    from taskflow._worker.lanes import Runner
    from taskflow._worker.runtime import Runtime
    from taskflow._worker.settler import Settler
    from taskflow.app import App

__all__ = ("ProcessRunner", "check_tasks", "kill_all", "leave_process", "make_pools")


class ProcessRunner:
    """A slot of the process lane, in the shape that slots know."""

    def __init__(self, slot: ProcessSlot, cancel_grace: float, problem: ConfigError | None) -> None:
        self._slot = slot
        self._cancel_grace = cancel_grace
        self._problem = problem

    async def run(self, attempt: Attempt) -> Outcome | None:
        """Run the body in the slot's child process."""
        if self._problem is not None:
            return Failed(error_info(self._problem))
        return await self._slot.run(attempt)

    async def failed(self, attempt: Attempt) -> None:
        """Run the ``failed`` hook in the child."""
        if self._problem is not None:
            return
        outcome = attempt.outcome
        error = outcome.error if isinstance(outcome, Failed) else ErrorInfo("JobFailedError", "")
        await self._slot.run_failed(attempt, error, self._cancel_grace)

    async def aclose(self) -> None:
        """End the child."""
        await self._slot.aclose(self._cancel_grace)

    def kill(self) -> None:
        """End the child at once; from any thread."""
        self._slot.kill()


def check_tasks() -> None:
    """See that process children can import the tasks that are registered for them.

    Raises:
        TaskDefinitionError: A task cannot be imported.
    """
    for definition in registry:
        if definition.lane is Lane.PROCESS and not definition.is_importable:
            raise TaskDefinitionError(
                task=definition.location,
                problem="a child process cannot import it: move it to module level of a "
                "module that is not run as a script",
            )


def _problem(app: App[Any]) -> ConfigError | None:
    """Why no child of this app can come up."""
    for option, value, thing in (
        ("lifespan", app.lifespan, app.lifespan), ("codec", app.codec, type(app.codec))
    ):  # fmt: skip
        if thing is not None and location(thing) is None:
            return ConfigError(
                option=option, value=value,
                problem="process children cannot import it: define it at module level of a "
                "module that is not run as a script",
            )  # fmt: skip
    return None


def location(thing: Any) -> str | None:
    """``module:qualname`` when that names the very thing in another process, too."""
    module = getattr(thing, "__module__", None)
    qualname = getattr(thing, "__qualname__", "<locals>")
    if module in (None, "__main__"):
        return None
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return f"{module}:{qualname}" if found is thing else None


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
            runtime.clean, runtime.stepping, runtime.app.codec, config.max_result,
            on_wait=runtime.body_waits,
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
    config, app = runtime.config, runtime.app
    settings = ProcessSettings(
        backend=backend_of(current_token()), config=config, worker_id=runtime.worker_id,
        codec=None if type(app.codec) is MsgpackCodec else location(type(app.codec)),
        lifespan=None if app.lifespan is None else location(app.lifespan),
    )  # fmt: skip
    slot = ProcessSlot(settings, enqueue=runtime.port.enqueue)
    runner = ProcessRunner(slot, config.cancel_grace, _problem(app))
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
