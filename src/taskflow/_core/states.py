"""The states of a job, the events that move it, and the one table that allows a move.

Every driver asks this table; no SQL text, script or ``if`` elsewhere repeats an arrow. A pair that
is not listed is an ``IllegalTransitionError``, made in one place (``after``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from taskflow.errors import IllegalTransitionError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("FINAL", "SETTLES", "TRANSITIONS", "Event", "JobState", "after", "sources_of")


class JobState(StrEnum):
    """Where a job stands. Exactly one at any time."""

    WAITING = "waiting"
    """Waits for its predecessors in a flow."""
    SCHEDULED = "scheduled"
    """Due later: delayed, snoozed or parked."""
    AVAILABLE = "available"
    """Due now; a worker may claim it."""
    RUNNING = "running"
    """Leased to a worker."""
    RETRYABLE = "retryable"
    """Failed, and due again later."""
    COMPLETED = "completed"
    """Ended with a result."""
    FAILED = "failed"
    """Ended with an error; kept as a dead letter."""
    CANCELLED = "cancelled"
    """Ended without completing: cancelled, skipped, expired or replaced."""


class Event(StrEnum):
    """What may happen to a job."""

    ENQUEUE = "enqueue"
    UNBLOCK = "unblock"
    SKIP = "skip"
    STAGE = "stage"
    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"
    SNOOZE = "snooze"
    PARK = "park"
    LAPSE = "lapse"
    RELEASE = "release"
    FAIL = "fail"
    EXPIRE = "expire"
    CANCEL = "cancel"
    REJOIN = "rejoin"
    REPLAY = "replay"


S, E = JobState, Event

FINAL: Final = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED})
"""States that only a replay or a rejoin leaves."""

TRANSITIONS: Final[Mapping[tuple[JobState | None, Event], tuple[JobState, ...]]] = {
    (None, E.ENQUEUE): (S.AVAILABLE, S.SCHEDULED, S.WAITING),
    (S.WAITING, E.UNBLOCK): (S.AVAILABLE, S.SCHEDULED),
    (S.WAITING, E.SKIP): (S.CANCELLED,),
    (S.SCHEDULED, E.STAGE): (S.AVAILABLE,),
    (S.RETRYABLE, E.STAGE): (S.AVAILABLE,),
    (S.AVAILABLE, E.CLAIM): (S.RUNNING,),
    (S.RUNNING, E.COMPLETE): (S.COMPLETED,),
    (S.RUNNING, E.RETRY): (S.RETRYABLE, S.CANCELLED),
    (S.RUNNING, E.SNOOZE): (S.SCHEDULED, S.CANCELLED),
    (S.RUNNING, E.PARK): (S.SCHEDULED, S.CANCELLED),
    (S.RUNNING, E.RELEASE): (S.AVAILABLE, S.CANCELLED),
    (S.RUNNING, E.FAIL): (S.FAILED,),
    (S.RUNNING, E.EXPIRE): (S.AVAILABLE,),
    (S.WAITING, E.LAPSE): (S.CANCELLED,),
    (S.SCHEDULED, E.LAPSE): (S.CANCELLED,),
    (S.AVAILABLE, E.LAPSE): (S.CANCELLED,),
    (S.RETRYABLE, E.LAPSE): (S.CANCELLED,),
    (S.WAITING, E.CANCEL): (S.CANCELLED,),
    (S.SCHEDULED, E.CANCEL): (S.CANCELLED,),
    (S.AVAILABLE, E.CANCEL): (S.CANCELLED,),
    (S.RETRYABLE, E.CANCEL): (S.CANCELLED,),
    (S.RUNNING, E.CANCEL): (S.RUNNING, S.CANCELLED),
    (S.CANCELLED, E.REJOIN): (S.WAITING,),
    (S.FAILED, E.REPLAY): (S.AVAILABLE,),
    (S.CANCELLED, E.REPLAY): (S.AVAILABLE,),
}
"""(state, event) to the states it may lead to; ``after`` chooses where there are several."""

SETTLES: Final = frozenset({E.COMPLETE, E.RETRY, E.SNOOZE, E.PARK, E.RELEASE, E.FAIL, E.CANCEL})
"""Events by which the holder of a lease ends an attempt."""


def sources_of(event: Event) -> frozenset[JobState]:
    """The states from which ``event`` may happen; what a driver's guard checks."""
    return frozenset(state for state, e in TRANSITIONS if e is event and state is not None)


def after(
    state: JobState | None,
    event: Event,
    *,
    due_later: bool = False,
    blocked: bool = False,
    cancel_requested: bool = False,
    by_holder: bool = False,
) -> JobState:
    """The state that follows.

    Args:
        state: Where the job stands; ``None`` before it exists.
        event: What happens.
        due_later: Its due time has not come (matters for enqueue and unblock).
        blocked: It has unfinished predecessors (matters for enqueue).
        cancel_requested: Its cancellation was asked for (turns retry, snooze, park and release
            of a running job into cancelled).
        by_holder: The lease's holder speaks (a cancel of a running job by anybody else is a
            request: the job stays running).

    Raises:
        IllegalTransitionError: The law has no such arrow.
    """
    targets = TRANSITIONS.get((state, event))
    if targets is None:
        raise IllegalTransitionError(state=state, event=event)
    if len(targets) == 1:
        return targets[0]
    if event is Event.CANCEL:
        return S.CANCELLED if by_holder else S.RUNNING
    if state is S.RUNNING:
        return S.CANCELLED if cancel_requested else targets[0]
    if blocked and S.WAITING in targets:
        return S.WAITING
    return S.SCHEDULED if due_later else S.AVAILABLE
