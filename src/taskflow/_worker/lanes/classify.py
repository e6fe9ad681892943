"""From what a body raised to an Outcome: the one place where exceptions are classified.

Used in the worker and in process children alike. Stored is text only: type, message and a
traceback without locals, cleaned of what a store or a terminal could choke on.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

from taskflow._core.outcomes import (
    Crashed,
    Discard,
    Discarded,
    Failed,
    Outcome,
    Retried,
    Retry,
    Snooze,
    Snoozed,
)
from taskflow._core.records import ErrorInfo
from taskflow.errors import JobFailedError, WorkerLostError

if TYPE_CHECKING:
    from taskflow._core.registry import TaskDefinition
    from taskflow._worker.attempt import Attempt

__all__ = ("classify", "error_info", "hook_error")

MAX_MESSAGE: Final = 8192
"""Characters of an error message that are kept."""
MAX_TRACEBACK: Final = 32_768
"""Characters of a traceback that are kept, from its end."""


def error_info(error: BaseException) -> ErrorInfo:
    """What is stored of an exception; never raises, whatever the exception does."""
    try:
        message = str(error)
    except BaseException as inner:
        message = f"<str() of it raised {type(inner).__name__}>"
    try:
        lines = "".join(traceback.format_exception(error))
    except BaseException as inner:
        lines = f"<formatting the traceback raised {type(inner).__name__}>"
    name = type(error).__qualname__
    return ErrorInfo(
        type=_clean(name), message=_clean(message)[:MAX_MESSAGE],
        traceback=_clean(lines)[-MAX_TRACEBACK:],
    )  # fmt: skip


def _clean(text: str) -> str:
    """Text that every store takes: no NUL, no lone surrogate."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode("utf-8")


def classify(definition: TaskDefinition, payload: Any, error: BaseException) -> Outcome:
    """The outcome of a body that raised ``error``."""
    if isinstance(error, Snooze):
        return Snoozed(error.delay)
    if isinstance(error, Retry):
        return Retried(error.after)
    if isinstance(error, Discard):
        return Discarded(error.reason)
    info = error_info(error)
    if not isinstance(error, Exception):
        return Failed(info)
    try:
        return Failed(info, final=not definition.should_retry(payload, error))
    except BaseException as inner:  # the task's own veto is broken: say so, keep the attempts
        inner.__context__ = error
        return Failed(error_info(inner))


def hook_error(attempt: Attempt) -> Exception:
    """What a ``failed`` hook is called with: the body's own exception where there is one."""
    if attempt.error is not None:
        return attempt.error
    outcome, job = attempt.outcome, attempt.job
    match outcome:
        case Crashed():
            return WorkerLostError(job_id=job.spec.id, crashes=job.crashes)
        case Discarded(reason):
            return Discard(reason)
        case Retried(after):
            return Retry(after)
        case Failed(error) if error.type == "TimeoutError":
            return TimeoutError(error.message)
        case Failed(error):
            return JobFailedError(
                job_id=job.spec.id, reason="failed", type=error.type, message=error.message,
                traceback=error.traceback,
            )  # fmt: skip
    return JobFailedError(job_id=job.spec.id, reason="failed", type="", message="")
