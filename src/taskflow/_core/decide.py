"""What follows an attempt: the one place that holds policy.

Pure and total over (leased job, outcome), so properties test it in microseconds, and the code that
performs the change has no branch left.
"""

from __future__ import annotations

from typing import Final, assert_never

from taskflow._core.outcomes import (
    Completed,
    Crashed,
    Discarded,
    Failed,
    Outcome,
    Parked,
    Released,
    Retried,
    Snoozed,
    Stopped,
)
from taskflow._core.records import Change, ErrorInfo, Leased
from taskflow._core.states import Event

__all__ = ("PARK_CAP", "decide", "precheck")

PARK_CAP: Final = 300.0
"""The longest time in seconds that a job of an unknown kind is parked."""


def precheck(job: Leased, *, max_crashes: int) -> Outcome | None:
    """What a claimed job has come to before anything of the user's runs; ``None``: run it."""
    if job.cancel_requested:
        return Stopped(started=False)
    if job.attempt > job.spec.max_attempts or job.crashes > max_crashes:
        return Crashed()
    return None


def decide(job: Leased, outcome: Outcome) -> Change:
    """The change that ends this attempt.

    The last retry becomes a fail here; drivers guard the law but hold no policy.
    """
    token = job.token
    match outcome:
        case Completed(result):
            return Change(token=token, event=Event.COMPLETE, result=result)
        case Failed(error, final):
            return _retry_or_fail(job, error, None, "refused" if final else "")
        case Retried(after):
            return _retry_or_fail(job, ErrorInfo("Retry", "the task asked for a retry"), after, "")
        case Discarded(reason):
            error = ErrorInfo("Discard", reason)
            return Change(token=token, event=Event.FAIL, error=error, reason="discarded")
        case Snoozed(delay):
            return Change(token=token, event=Event.SNOOZE, delay=delay, refund=True)
        case Parked():
            delay = min(2.0 ** min(job.parks, 16), PARK_CAP)
            return Change(
                token=token, event=Event.PARK, delay=delay, refund=True, started=False,
                reason="unknown kind",
            )  # fmt: skip
        case Released(started):
            return Change(token=token, event=Event.RELEASE, refund=True, started=started)
        case Stopped(started):
            return Change(
                token=token, event=Event.CANCEL, reason="cancelled", refund=not started,
                started=started,
            )  # fmt: skip
        case Crashed():
            error = ErrorInfo("WorkerLostError", f"its worker died {job.crashes} time(s)")
            return Change(
                token=token, event=Event.FAIL, error=error, reason="crashed", refund=True,
                started=False,
            )  # fmt: skip
        case _:
            assert_never(outcome)


def _retry_or_fail(job: Leased, error: ErrorInfo, after: float | None, reason: str) -> Change:
    if not reason and job.attempt < job.spec.max_attempts:
        delay = job.spec.retry.delay(job.attempt, job.spec.id) if after is None else after
        return Change(token=job.token, event=Event.RETRY, delay=delay, error=error)
    return Change(token=job.token, event=Event.FAIL, error=error, reason=reason or "exhausted")
