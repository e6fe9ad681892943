"""The async lane: bodies on the worker's event loop, each in a context and a scope of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import current_token

from taskflow import context as task_context
from taskflow._bridge import native_cancel_requests
from taskflow._core.outcomes import Failed, Outcome, Released
from taskflow._worker.isolation import CleanContext, Stepping, drive
from taskflow._worker.lanes.classify import classify, error_info, hook_error
from taskflow._worker.lanes.results import encode_result
from taskflow._worker.posting import backend_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskflow._worker.attempt import Attempt
    from taskflow.abc import Codec

__all__ = ("AsyncLane", "SlotBroken")


class SlotBroken(Exception):
    """The body left its slot's task unfit for another job; ``outcome`` is that attempt's."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__("the slot's task cannot be used again")


class AsyncLane:
    """Runs one body at a time for each slot that calls ``run``.

    Args:
        clean: The context that bodies start from.
        stepping: Told which attempt is being stepped.
        codec: Encodes results.
        max_result: Bytes that a result may have.
        on_wait: Called when a body waits: another one may begin.
    """

    def __init__(
        self, clean: CleanContext, stepping: Stepping, codec: Codec, max_result: int, *,
        on_wait: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._on_wait = on_wait
        self._is_asyncio = backend_of(current_token()) == "asyncio"
        self._clean = clean
        self._stepping = stepping
        self._codec = codec
        self._max_result = max_result

    async def run(self, attempt: Attempt) -> Outcome:
        """The outcome of the body.

        Raises:
            SlotBroken: There is an outcome, but this task must not run another job.
        """
        attempt.begin()
        context = self._clean.copy()
        context.run(task_context._current.set, attempt.new_context())  # noqa: SLF001
        scope, error, value = attempt.scope, None, None
        scope.__enter__()
        try:
            attempt.coroutine = coroutine = context.run(attempt.definition.run, attempt.payload)
            value = await drive(coroutine, context, self._stepping, attempt, self._on_wait)
        except BaseException as exc:  # every way a body can end is an outcome
            error = exc
        outcome = self._leave(attempt, error, value)
        if self._is_asyncio and native_cancel_requests():
            raise SlotBroken(outcome)
        return outcome

    def _leave(self, attempt: Attempt, error: BaseException | None, value: Any) -> Outcome:
        """Leave the scope and say what the attempt has come to; awaits nothing.

        A pending cancellation strikes at the next await and would take the outcome with it.
        """
        scope = attempt.scope
        stopped = scope.cancel_called
        try:
            if error is None:
                scope.__exit__(None, None, None)
            else:
                scope.__exit__(type(error), error, error.__traceback__)
        except BaseException as exc:
            if isinstance(exc, RuntimeError) and exc is not error:
                # A scope or task group that the body left open: this task's stack is corrupt.
                raise SlotBroken(Failed(error_info(exc))) from exc
            error = exc
        if error is None:
            return encode_result(self._codec, attempt.definition, value, self._max_result)
        if isinstance(error, anyio.get_cancelled_exc_class()):
            if stopped:
                return attempt.stop_outcome()
            if native_cancel_requests():
                return Released(started=True)  # somebody cancelled the task: not this body
        return self._failed(attempt, error, stopped)

    def _failed(self, attempt: Attempt, error: BaseException, stopped: bool) -> Outcome:
        if stopped and _only_cancelled(error):
            return attempt.stop_outcome()
        attempt.error = error if isinstance(error, Exception) else None
        return classify(attempt.definition, attempt.payload, error)

    async def failed(self, attempt: Attempt) -> None:
        """Await the ``failed`` hook in a context of its own; what it raises goes to the caller."""
        context = self._clean.copy()
        context.run(task_context._current.set, attempt.new_context())  # noqa: SLF001
        coroutine = context.run(attempt.definition.failed, attempt.payload, hook_error(attempt))
        await drive(coroutine, context, self._stepping, attempt)

    async def aclose(self) -> None:
        """Nothing to close: bodies live in the slot's own task."""


def _only_cancelled(error: BaseException) -> bool:
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return all(_only_cancelled(part) for part in error.exceptions)
    return isinstance(error, cancelled)
