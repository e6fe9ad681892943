"""One claimed job in this worker, from claim to outcome."""

from __future__ import annotations

import math
import time
from enum import Enum
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope

from taskflow._core.outcomes import Failed, Outcome, Released, Stopped
from taskflow._core.records import ErrorInfo
from taskflow.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskflow._core.records import Leased, Progress, Settled
    from taskflow._core.registry import TaskDefinition

__all__ = ("Attempt", "BodyCancelled", "StopReason")


class StopReason(Enum):
    """Why an attempt is being stopped from outside; a timeout is the scope's own deadline."""

    CANCEL = "cancel"
    LOST = "lost"
    SHUTDOWN = "shutdown"


class Attempt:
    """The runtime side of one lease. Lanes enter ``scope`` around the body.

    ``stop`` may be called on the event loop only; ``report`` and the ``is_cancelled`` flag are
    safe from any thread.
    """

    # Defaults stand on the class: most attempts change few of them, and setting them all costs.
    payload: Any = None
    began = False
    began_at = 0.0
    is_cancelled = False
    stop_reason: StopReason | None = None
    stopped_at = math.inf
    coroutine: Any = None
    claimed_at = 0.0
    outcome: Outcome | None = None
    error: Exception | None = None
    is_settling = False
    settled: anyio.Event | None = None
    verdict: Settled | None = None
    progress: Progress | None = None
    start_by = math.inf
    deadline: float | None = None

    def __init__(
        self, job: Leased, definition: TaskDefinition | None, *, worker_id: str, state: Any,
        trust_until: float, notify_progress: Any = None,
        make_scope: Callable[[], CancelScope] = CancelScope,
    ) -> None:  # fmt: skip
        self.job = job
        self.definition: Any = definition
        self.scope = make_scope()
        self.worker_id = worker_id
        self.state = state
        self.trust_until = trust_until
        self.notify_progress = notify_progress

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.spec.id

    @property
    def kind(self) -> str:
        """The job's kind."""
        return self.job.spec.kind

    def new_context(self) -> Context:
        """What a body sees. Not kept: what an attempt held is to go with its last reference."""
        return Context(
            self.job, self, worker_id=self.worker_id, state=self.state, deadline=self.deadline
        )

    def begin(self) -> None:
        """The body starts now: the timeout's clock runs from here."""
        self.began = True
        self.began_at = time.monotonic()
        timeout = self.job.spec.timeout
        if timeout is not None:
            self.scope.deadline = anyio.current_time() + timeout
            self.deadline = time.time() + timeout

    def stop(self, reason: StopReason) -> None:
        """Stop the body as far as its lane can. The first reason wins, a lost lease over all."""
        if self.stop_reason is None or reason is StopReason.LOST:
            self.stop_reason = reason
        self.is_cancelled = True
        self.stopped_at = min(self.stopped_at, anyio.current_time())
        self.scope.cancel()

    def stop_outcome(self) -> Outcome:
        """What the attempt has come to when its scope's cancellation ended it."""
        if self.stop_reason is StopReason.CANCEL:
            return Stopped(started=self.began)
        if self.stop_reason is None:
            return _timed_out(self.job.spec.timeout)
        return Released(started=self.began)  # with a lost lease, the fence makes this a no-op

    def report(self, progress: Progress) -> None:
        """Keep the latest progress; it travels with the next renewal."""
        self.progress = progress
        if self.notify_progress is not None:
            self.notify_progress(self)

    def check_cancelled(self) -> None:
        """Raise into a body that asks whether to stop; each lane has its own way."""
        if self.is_cancelled:
            raise BodyCancelled


def _timed_out(timeout: float | None) -> Failed:
    message = f"the attempt took longer than {timeout or 0:g} s"
    return Failed(ErrorInfo("TimeoutError", message))


class BodyCancelled(BaseException):
    """Ends a body of the thread lane that asked; passes through ``except Exception``."""
