"""The thread lane: our own daemon threads, one for each slot.

AnyIO's pool is not used: the interpreter waits for its threads at exit, and its limiter would be
shared. No exception is ever raised into a thread (it would leave locks held for ever): a body is
asked to stop, and one that ignores it keeps its slot and its lease until it ends.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope
from anyio.lowlevel import current_token

from taskflow import context as task_context
from taskflow._worker.attempt import BodyCancelled
from taskflow._worker.lanes.classify import classify, hook_error
from taskflow._worker.lanes.results import encode_result
from taskflow._worker.posting import post

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskflow._core.outcomes import Outcome
    from taskflow._worker.attempt import Attempt
    from taskflow._worker.isolation import CleanContext
    from taskflow.abc import Codec

__all__ = ("ThreadSlot",)

logger = logging.getLogger("taskflow.worker")


class ThreadSlot:
    """One slot of the lane and its thread, started at the first job.

    Args:
        clean: The context that bodies start from.
        codec: Encodes results.
        max_result: Bytes that a result may have.
        cancel_grace: Seconds after which a body that ignores its cancellation is reported.
        abandoned: Set at the end of a shutdown: leave threads behind that have not ended.
    """

    def __init__(
        self, clean: CleanContext, codec: Codec, *, max_result: int, cancel_grace: float,
        abandoned: anyio.Event,
    ) -> None:  # fmt: skip
        self._clean = clean
        self._codec = codec
        self._max_result = max_result
        self._cancel_grace = cancel_grace
        self._abandoned = abandoned
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, attempt: Attempt) -> Outcome | None:
        """The outcome of the body; ``None`` when its thread was left behind at shutdown."""
        attempt.begin()
        outcome = await self._on_thread(lambda: self._body(attempt), attempt)
        if outcome is None:
            return None
        if attempt.scope.cancel_called and attempt.stop_reason is None:
            return attempt.stop_outcome()  # its value came after the timeout, and is dropped
        return outcome

    async def failed(self, attempt: Attempt) -> None:
        """Run the ``failed`` hook on the slot's thread, in a context of its own."""
        context, done, token = self._context(attempt), anyio.Event(), current_token()
        hook, error = attempt.definition.failed, hook_error(attempt)

        def call() -> None:
            try:
                context.run(hook, attempt.payload, error)
            except BaseException:
                logger.exception("the `failed` hook of %s raised", attempt.kind)
            post(token, done.set)

        self._start().put(call)
        await done.wait()

    async def aclose(self) -> None:
        """Let the thread end after its present call."""
        self._calls.put(None)

    async def _on_thread(self, body: Callable[[], Outcome], attempt: Attempt) -> Outcome | None:
        done, box, token = anyio.Event(), [], current_token()

        def call() -> None:
            box.append(body())
            post(token, done.set)

        self._start().put(call)
        with attempt.scope:
            await done.wait()
        if not done.is_set():
            attempt.is_cancelled = True
            with CancelScope(shield=True):
                await self._wait_out(attempt, done)
        return box[0] if box else None

    async def _wait_out(self, attempt: Attempt, done: anyio.Event) -> None:
        """Hold slot and lease until the thread really ends, or shutdown leaves it behind."""
        with anyio.move_on_after(self._cancel_grace):
            await done.wait()
        if done.is_set():
            return
        logger.warning(
            "%s %s ignores its cancellation in a thread; its slot and lease are kept until it "
            "ends:\n%s", attempt.kind, attempt.id, self._stack(),
            extra={"job_id": attempt.id},
        )  # fmt: skip
        async with anyio.create_task_group() as task_group:

            async def either(event: anyio.Event) -> None:
                await event.wait()
                task_group.cancel_scope.cancel()

            task_group.start_soon(either, done)
            task_group.start_soon(either, self._abandoned)

    def _body(self, attempt: Attempt) -> Outcome:
        context = self._context(attempt)
        try:
            value = context.run(attempt.definition.run, attempt.payload)
        except BodyCancelled:
            return attempt.stop_outcome()
        except BaseException as exc:
            attempt.error = exc if isinstance(exc, Exception) else None
            return classify(attempt.definition, attempt.payload, exc)
        return encode_result(self._codec, attempt.definition, value, self._max_result)

    def _context(self, attempt: Attempt) -> Any:
        context = self._clean.copy()
        context.run(task_context._current.set, attempt.new_context())  # noqa: SLF001
        return context

    def _start(self) -> SimpleQueue[Callable[[], None] | None]:
        if self._thread is None:
            self._thread = threading.Thread(
                target=_serve, args=(self._calls,), name="taskflow-lane", daemon=True
            )
            self._thread.start()
        return self._calls

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread else None  # noqa: SLF001
        return "".join(traceback.format_stack(frame)) if frame else "<no frame>"


def _serve(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call
