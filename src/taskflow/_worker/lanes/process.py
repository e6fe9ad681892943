"""The process lane: child processes of our own, warm, one job each at a time.

A body there can be stopped for sure: SIGTERM, a grace, SIGKILL for it and all that it started. A
crash costs that attempt and nothing else.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import msgspec
from anyio import CancelScope

from taskflow._core.outcomes import Completed, Failed, Outcome, Released
from taskflow._core.records import Enqueued, ErrorInfo, JobSpec
from taskflow._worker.attempt import StopReason
from taskflow._worker.lanes.classify import error_info
from taskflow._worker.lanes.frames import (
    BadFrameError,
    Begun,
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
from taskflow.config import Config
from taskflow.errors import ProcessDiedError, TaskflowError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskflow._worker.attempt import Attempt

Keyed = TypeVar("Keyed", Begun, Done, HookDone)

__all__ = ("ProcessSettings", "ProcessSlot")

logger = logging.getLogger("taskflow.worker")

FIRST_PAUSE: Final = 0.5
"""Seconds before a child that did not come up is started again; doubled up to ``LAST_PAUSE``."""
LAST_PAUSE: Final = 30.0


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How children of the lane live.

    Attributes:
        backend: The kind of event loop for async bodies.
        config: The worker's settings; a child gets them without the URL.
        codec: ``module:qualname`` of the codec's class; ``None`` for the default.
        lifespan: ``module:qualname`` of the app's lifespan.
        worker_id: The worker's.
    """

    backend: str
    config: Config
    codec: str | None = None
    lifespan: str | None = None
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
        try:
            return await self._run(attempt)
        except BaseException:
            with CancelScope(shield=True):
                await self._replace()  # nobody would hear what its body says
            raise

    async def _run(self, attempt: Attempt) -> Outcome:
        try:
            child = await self._warm()
        except ChildDiedError as exc:
            return await self._not_started(attempt, exc)
        if attempt.stop_reason is not None:
            return attempt.stop_outcome()
        attempt.begin()
        begun: Begun | None = None
        frame: Done | None = None
        try:
            with attempt.scope:
                await child.send(_order(attempt))
                begun = await self._until(child, attempt, Begun)
                frame = await self._until(child, attempt, Done)
        except (ChildDiedError, BadFrameError) as exc:
            if begun is None:
                return await self._unfit(attempt, exc)
            return await self._died(exc)
        if frame is None:
            return await self._stop(child, attempt)
        self._pause = FIRST_PAUSE
        await self._recycle(child, frame)
        return frame.outcome

    async def run_failed(self, attempt: Attempt, error: ErrorInfo, within: float) -> None:
        """Run the ``failed`` hook in the child; best effort, the child is killed on overrun."""
        has_ended = False
        try:
            with anyio.move_on_after(within):
                child = await self._warm()
                await child.send(Hook(attempt.job, attempt.definition.location, error))
                await self._until(child, attempt, HookDone)
                has_ended = True
        except (ChildDiedError, BadFrameError):
            pass
        finally:
            if not has_ended:
                logger.warning("the `failed` hook of %s did not end", attempt.kind)
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
            settings, names = self._settings, self._settings.config.process_env
            init = Init(
                backend=settings.backend, lifespan=settings.lifespan, worker_id=settings.worker_id,
                config=settings.config.replace(url=None, driver=None), codec=settings.codec,
            )  # fmt: skip
            env = None
            if names is not None:
                env = {name: os.environ[name] for name in names if name in os.environ}
            self._child = await Child.start(init, env)
        return self._child

    async def _until(self, child: Child, attempt: Attempt, kind: type[Keyed]) -> Keyed:
        """Serve the body until the child says this of this job."""
        key = _key(attempt)
        while True:
            frame = await self._next(child, attempt)
            if isinstance(frame, kind) and frame.key == key:
                return frame

    async def _next(self, child: Child, attempt: Attempt) -> object:
        """The next frame that is not served here."""
        while True:
            frame = await child.receive()
            if isinstance(frame, Report):
                if frame.key == _key(attempt):  # else from a thread that an earlier body left
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

    async def _stop(self, child: Child, attempt: Attempt) -> Outcome:
        """SIGTERM, a grace, SIGKILL; a value that came in time is kept, but not past a timeout."""
        frame: Done | None = None
        with CancelScope(shield=True):
            child.terminate()
            until = anyio.current_time() + self._settings.config.cancel_grace
            with CancelScope(deadline=until):
                try:
                    frame = await self._until(child, attempt, Done)
                except (ChildDiedError, BadFrameError):
                    frame = None
            left = until - anyio.current_time()
            await self.aclose(max(left, 0.0) if frame is not None else 0.0)
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

    async def _unfit(self, attempt: Attempt, exc: Exception) -> Outcome:
        """Hand the job back that the child did not take: what an earlier body left ended it."""
        logger.warning("a process child had ended when it was given a job: %s", exc)
        attempt.began = False
        await self._replace()
        return Released(started=False)

    async def _not_started(self, attempt: Attempt, error: ChildDiedError) -> Outcome:
        """Hand the job back after a pause: no job fails because children cannot start."""
        logger.error(
            "%s: the child did not come up: %s; trying again in %g s",
            attempt.kind, error, self._pause,
        )  # fmt: skip
        with attempt.scope:
            await anyio.sleep(self._pause)
        self._pause = min(self._pause * 2, LAST_PAUSE)
        return Released(started=False)

    async def _replace(self) -> None:
        await self.aclose(0)

    async def _recycle(self, child: Child, frame: Done) -> None:
        """End a child that is worn, in order, so that its lifespan has its end."""
        config = self._settings.config
        child.jobs += 1
        is_worn = frame.is_spent or 0 < config.process_max_jobs <= child.jobs
        limit = config.process_max_memory
        if is_worn or (limit is not None and child.memory > limit):
            await self.aclose(config.cancel_grace)


def _key(attempt: Attempt) -> Key:
    token = attempt.job.token
    return token.id, token.delivery


def _order(attempt: Attempt) -> Run:
    timeout = attempt.job.spec.timeout
    deadline = None if timeout is None else time.time() + timeout
    return Run(attempt.job, attempt.definition.location, deadline)
