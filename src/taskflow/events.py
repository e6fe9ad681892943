"""The events that an ``Instrument`` receives: frozen Structs, no payloads in them."""

from __future__ import annotations

import msgspec

__all__ = (
    "DriverAway",
    "DriverBack",
    "DriverCall",
    "JobDispatched",
    "JobExpired",
    "JobFinished",
    "JobProgressed",
    "JobReleased",
    "JobStarted",
    "JobsClaimed",
    "LeaseLost",
    "LoopStalled",
    "TaskflowEvent",
    "WorkerDraining",
    "WorkerReady",
    "WorkerStarted",
    "WorkerStopped",
)


class TaskflowEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all events."""


class JobDispatched(TaskflowEvent, frozen=True, kw_only=True):
    """A job was stored."""

    job_id: str
    kind: str
    queue: str


class JobsClaimed(TaskflowEvent, frozen=True, kw_only=True):
    """A worker claimed jobs."""

    worker_id: str
    job_ids: tuple[str, ...]


class JobStarted(TaskflowEvent, frozen=True, kw_only=True):
    """A body begins."""

    job_id: str
    kind: str
    queue: str
    attempt: int
    worker_id: str


class JobProgressed(TaskflowEvent, frozen=True, kw_only=True):
    """A body reported how far it is."""

    job_id: str
    fraction: float
    note: str


class JobFinished(TaskflowEvent, frozen=True, kw_only=True):
    """An attempt ended; ``seconds`` the body ran.

    ``state`` is where the job stands now; empty when nothing was stored, because the job was
    somebody else's by then or the store stayed away: then it runs again.
    """

    job_id: str
    kind: str
    queue: str
    attempt: int
    worker_id: str
    outcome: str
    state: str
    seconds: float


class JobReleased(TaskflowEvent, frozen=True, kw_only=True):
    """A job was handed back without an attempt spent."""

    job_id: str
    kind: str


class JobExpired(TaskflowEvent, frozen=True, kw_only=True):
    """A dead lease was ended; another worker may claim the job."""

    job_id: str


class LeaseLost(TaskflowEvent, frozen=True, kw_only=True):
    """A lease is somebody else's, or could not be renewed in time; the attempt is stopped."""

    job_id: str
    kind: str


class WorkerStarted(TaskflowEvent, frozen=True, kw_only=True):
    """A worker has begun to start its services."""

    worker_id: str


class WorkerReady(TaskflowEvent, frozen=True, kw_only=True):
    """All services are up; jobs are being claimed."""

    worker_id: str


class WorkerDraining(TaskflowEvent, frozen=True, kw_only=True):
    """Shutdown has begun; nothing new is claimed."""

    worker_id: str
    running: int


class WorkerStopped(TaskflowEvent, frozen=True, kw_only=True):
    """The worker has ended; ``abandoned`` jobs ignored their cancellation."""

    worker_id: str
    abandoned: int


class DriverCall(TaskflowEvent, frozen=True, kw_only=True):
    """One call of the driver; ``error`` is the class name of what it raised."""

    operation: str
    batch: int
    seconds: float
    error: str | None = None


class DriverAway(TaskflowEvent, frozen=True, kw_only=True):
    """The store does not answer; calls are being repeated."""

    operation: str
    error: str


class DriverBack(TaskflowEvent, frozen=True, kw_only=True):
    """The store answers again."""

    operation: str
    seconds: float


class LoopStalled(TaskflowEvent, frozen=True, kw_only=True):
    """The event loop has not moved; ``kinds`` names the tasks that run."""

    worker_id: str
    seconds: float
    kinds: tuple[str, ...]
