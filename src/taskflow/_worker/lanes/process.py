"""The process lane: child processes of our own, warm, one job each at a time.

A body there can be stopped for sure: SIGTERM, a grace, SIGKILL for it and all that it started. A
crash costs that attempt and nothing else.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
from anyio import CancelScope

from taskflow._core.outcomes import Completed, Failed, Outcome, Released
from taskflow._core.records import Enqueued, ErrorInfo, JobSpec
from taskflow._worker.attempt import StopReason
from taskflow._worker.lanes.classify import error_info
from taskflow._worker.lanes.frames import (
    BadFrameError,
    Broken,
    Dispatch,
    Done,
    Hook,
    HookDone,
    Init,
    Key,
    Report,
    Run,
    Stored,
)
from taskflow._worker.lanes.process_handle import Child, ChildDiedError
from taskflow.errors import ProcessDiedError, TaskflowError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskflow._worker.attempt import Attempt

__all__ = ("ProcessSettings", "ProcessSlot")

logger = logging.getLogger("taskflow.worker")

FIRST_PAUSE: Final = 0.5
"""Seconds before a child that did not come up is started again; doubled up to ``LAST_PAUSE``."""
LAST_PAUSE: Final = 30.0


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How children of the lane live.

    Attributes:
        backend: The kind of event loop for async bodies.
        cancel_grace: Seconds from SIGTERM to SIGKILL.
        max_jobs: Jobs after which a child is replaced; 0 for never.
        max_memory: Bytes of memory above which it is replaced after a job.
        env: The environment variables that it gets; ``None`` for all.
        lifespan: ``module:qualname`` of the app's lifespan.
        max_result: Bytes that a result may have.
        worker_id: The worker's.
    """

    backend: str
    cancel_grace: float = 5.0
    max_jobs: int = 1000
    max_memory: int | None = None
    env: tuple[str, ...] | None = None
    lifespan: str | None = None
    max_result: int = 1 << 20
    worker_id: str = ""


class ProcessSlot:
    """One slot of the lane: it has a child, and replaces it when it must.

    Args:
        settings: How its children live.
        enqueue: Stores jobs that bodies dispatch.
    """

    def __init__(
        self, settings: ProcessSettings, *,
        enqueue: Callable[[Sequence[JobSpec]], Awaitable[list[Enqueued]]],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._enqueue = enqueue
        self._child: Child | None = None
        self._pause = FIRST_PAUSE

    async def run(self, attempt: Attempt) -> Outcome:
        """The outcome of the body, whichever way it and its child end."""
        key = _key(attempt)
        try:
            child = await self._warm()
            deadline = attempt.job.spec.timeout
            await child.send(
                Run(
                    attempt.job, attempt.definition.location,
                    None if deadline is None else time.time() + deadline,
                )
            )  # fmt: skip
        except ChildDiedError as exc:
            return await self._not_started(attempt, f"the child did not come up: {exc}")
        attempt.begin()
        frame: Done | Broken | None = None
        try:
            with attempt.scope:
                frame = await self._answer(child, attempt, key)
        except (ChildDiedError, BadFrameError) as exc:
            return await self._died(exc)
        if frame is None:
            return await self._stop(child, attempt, key)
        if isinstance(frame, Broken):
            attempt.began = False
            return await self._not_started(attempt, f"{frame.error.type}: {frame.error.message}")
        self._pause = FIRST_PAUSE
        await self._recycle(child)
        return frame.outcome

    async def run_failed(self, attempt: Attempt, error: ErrorInfo, within: float) -> None:
        """Run the ``failed`` hook in the child; best effort, the child is killed on overrun."""
        key = _key(attempt)
        try:
            with anyio.fail_after(within):
                child = await self._warm()
                await child.send(Hook(attempt.job, attempt.definition.location, error))
                while True:
                    frame = await self._next(child, attempt)
                    if isinstance(frame, HookDone) and frame.key == key:
                        return
        except (TimeoutError, ChildDiedError, BadFrameError):
            logger.warning("the `failed` hook of %s did not end", attempt.context.kind)
            await self._replace()

    async def aclose(self, grace: float) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            await child.end(grace)

    def kill(self) -> None:
        """End the child at once; from any thread."""
        child = self._child
        if child is not None:
            child.kill()

    async def _warm(self) -> Child:
        """The slot's child, started if there is none or the last one died while it was idle."""
        if self._child is not None and self._child.returncode is not None:
            await self._replace()
        if self._child is None:
            settings = self._settings
            init = Init(
                path=list(sys.path), backend=settings.backend, lifespan=settings.lifespan,
                max_result=settings.max_result, worker_id=settings.worker_id,
            )  # fmt: skip
            env = None
            if settings.env is not None:
                env = {name: os.environ[name] for name in settings.env if name in os.environ}
            self._child = await Child.start(init, env)
        return self._child

    async def _answer(self, child: Child, attempt: Attempt, key: Key) -> Done | Broken:
        """Serve the body until it has ended."""
        while True:
            frame = await self._next(child, attempt)
            if isinstance(frame, Done | Broken) and frame.key == key:
                return frame

    async def _next(self, child: Child, attempt: Attempt) -> object:
        """The next frame that is not served here."""
        while True:
            frame = await child.receive()
            if isinstance(frame, Report):
                attempt.report(frame.progress)
            elif isinstance(frame, Dispatch):
                await child.send(await self._store(frame))
            else:
                return frame

    async def _store(self, frame: Dispatch) -> Stored:
        """Store what the body dispatches; shielded, so that the child gets its answer."""
        answer = Stored([])
        with CancelScope(shield=True):
            try:
                answer.replies = list(await self._enqueue(frame.specs))
            except TaskflowError as exc:
                answer.error = f"{type(exc).__name__}: {exc}"
        return answer

    async def _stop(self, child: Child, attempt: Attempt, key: Key) -> Outcome:
        """SIGTERM, a grace, SIGKILL; a value that came in time is kept, but not past a timeout."""
        frame: Done | Broken | None = None
        with CancelScope(shield=True):
            child.terminate()
            with anyio.move_on_after(self._settings.cancel_grace):
                try:
                    frame = await self._answer(child, attempt, key)
                except (ChildDiedError, BadFrameError):
                    frame = None
            await self._replace()
        kept = attempt.stop_reason in {StopReason.CANCEL, StopReason.SHUTDOWN}
        if kept and isinstance(frame, Done) and isinstance(frame.outcome, Completed):
            return frame.outcome
        return attempt.stop_outcome()

    async def _died(self, exc: ChildDiedError | BadFrameError) -> Outcome:
        """The attempt of a child that crashed has failed, at once."""
        await self._replace()
        if isinstance(exc, BadFrameError):
            return Failed(ErrorInfo("BadFrameError", f"the child sent no proper frame: {exc}"))
        return Failed(error_info(ProcessDiedError.of(exc.returncode)))

    async def _not_started(self, attempt: Attempt, problem: str) -> Outcome:
        """Hand the job back after a pause: no job fails because children cannot start."""
        logger.error("%s: %s; trying again in %g s", attempt.context.kind, problem, self._pause)
        await self._replace()
        with attempt.scope:
            await anyio.sleep(self._pause)
        self._pause = min(self._pause * 2, LAST_PAUSE)
        return Released(started=False)

    async def _replace(self) -> None:
        await self.aclose(0)

    async def _recycle(self, child: Child) -> None:
        settings = self._settings
        child.jobs += 1
        worn = settings.max_jobs and child.jobs >= settings.max_jobs
        if worn or (settings.max_memory is not None and child.memory > settings.max_memory):
            await self._replace()


def _key(attempt: Attempt) -> Key:
    token = attempt.job.token
    return token.id, token.delivery
