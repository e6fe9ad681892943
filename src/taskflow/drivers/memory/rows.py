"""One job in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskflow._core.records import JobRecord, JobSpec, Leased, Token, instant
from taskflow._core.states import JobState

if TYPE_CHECKING:
    from taskflow._core.flows import Edge
    from taskflow._core.records import ErrorInfo, Progress
    from taskflow._core.states import Event

__all__ = ("Link", "Row")


class Link:
    """An edge. ``fired`` is None until the predecessor ends, then whether it lets go."""

    __slots__ = ("edge", "fired", "successor")

    def __init__(self, edge: Edge, successor: Row, fired: bool | None) -> None:
        self.edge = edge
        self.successor = successor
        self.fired = fired


class Row:
    """The mutable part of a job beside its spec. Instants are microseconds."""

    __slots__ = (
        "attempt", "cancel_requested", "crashes", "delivery", "due", "enqueued_at", "error",
        "expires_at", "fin", "fin_state", "finished_at", "interruptions", "lease_until", "links", "parks",
        "placed", "progress", "reason", "request_id", "result", "seq", "spec", "started_at", "state",
        "worker_id",
    )  # fmt: skip

    def __init__(self, spec: JobSpec, seq: int, now: int, due: int) -> None:
        self.spec = spec
        self.seq = seq
        self.state = JobState.WAITING
        self.due = due
        self.enqueued_at = now
        self.expires_at: int | None = None
        self.attempt = 0
        self.crashes = 0
        self.interruptions = 0
        self.parks = 0
        self.delivery = 0
        self.placed = 0
        self.request_id = ""
        self.worker_id: str | None = None
        self.lease_until = 0
        self.cancel_requested = False
        self.fin: tuple[int, str, Event] | None = None
        self.fin_state: JobState | None = None
        self.reason = ""
        self.result: bytes | None = None
        self.error: ErrorInfo | None = None
        self.progress: Progress | None = None
        self.started_at: int | None = None
        self.finished_at: int | None = None
        self.links: tuple[Link, ...] = ()

    @property
    def order(self) -> tuple[int, int, int]:
        """The most urgent first, within one queue."""
        return -self.spec.priority, self.due, self.seq

    def is_held_by(self, token: Token) -> bool:
        """The fence."""
        return (
            self.state is JobState.RUNNING
            and self.delivery == token.delivery
            and self.request_id == token.request_id
        )

    def leased(self) -> Leased:
        """What a claim hands out."""
        return Leased(
            token=Token(self.spec.id, self.delivery, self.request_id), spec=self.spec,
            attempt=self.attempt, crashes=self.crashes, interruptions=self.interruptions,
            parks=self.parks, cancel_requested=self.cancel_requested,
            enqueued_at=self.enqueued_at, due_at=self.due, expires_at=self.expires_at,
        )  # fmt: skip

    def record(self) -> JobRecord:
        """What users see."""
        spec, at, due = self.spec, instant(self.enqueued_at), instant(self.due)
        assert at is not None
        assert due is not None
        return JobRecord(
            id=spec.id, kind=spec.kind, queue=spec.queue, lane=spec.lane, state=self.state,
            reason=self.reason, priority=spec.priority, attempt=self.attempt,
            max_attempts=spec.max_attempts, crashes=self.crashes,
            interruptions=self.interruptions, parks=self.parks, delivery=self.delivery,
            cancel_requested=self.cancel_requested, tags=spec.tags, unique=spec.unique,
            dispatched_at=at, due_at=due, started_at=instant(self.started_at),
            finished_at=instant(self.finished_at), expires_at=instant(self.expires_at),
            worker_id=self.worker_id, progress=self.progress, error=self.error,
        )  # fmt: skip
