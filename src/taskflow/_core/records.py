"""The data that crosses the driver seam, and what users read of a job.

Instants inside are integer microseconds of Unix time by the store's clock; users get aware
datetimes (``JobRecord``). Durations are float seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

import msgspec

from taskflow._core.flows import Edge
from taskflow._core.retry import Backoff
from taskflow._core.states import Event, JobState

__all__ = (
    "MICRO",
    "Accepted",
    "Cancelled",
    "Change",
    "Claim",
    "Claimed",
    "Conflict",
    "Enqueued",
    "ErrorInfo",
    "Extended",
    "Fetched",
    "JobRecord",
    "LAST",
    "JobSpec",
    "Lane",
    "Leased",
    "Progress",
    "Renewal",
    "Room",
    "Settled",
    "Timing",
    "Token",
    "Unique",
    "Verdict",
    "Wait",
    "Wake",
    "decode_spec",
    "digest",
    "encode_spec",
    "instant",
    "later",
    "micros",
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICRO: Final = 1_000_000
"""Microseconds in a second."""
LAST: Final = 250_000_000_000 * MICRO
"""The longest time (µs) that is counted, nearly 8,000 years: what is longer counts as this."""


def instant(us: int | None) -> datetime | None:
    """Microseconds of Unix time as an aware datetime in UTC; exact."""
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def micros(at: datetime) -> int:
    """An aware datetime as microseconds of Unix time; exact."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def later(now: int, seconds: float) -> int:
    """The instant (µs) so many seconds after ``now``; always one that a datetime can show."""
    return now + round(min(seconds * MICRO, LAST))


class Lane(StrEnum):
    """Where ``execute`` runs."""

    ASYNC = "async"
    THREAD = "thread"
    PROCESS = "process"


class Conflict(StrEnum):
    """What a dispatch does when a live job holds its unique key."""

    KEEP = "keep"
    """Keep the job that holds the key; the dispatch returns that job."""
    RAISE = "raise"
    """Raise ``JobConflictError``."""
    REPLACE = "replace"
    """Cancel the holder (reason ``replaced``) and take the key; conflict while it runs."""


LIVE: Final = tuple(
    state for state in JobState if state not in {"completed", "failed", "cancelled"}
)


class Unique(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """At most one job with this key in the given states.

    Attributes:
        key: Any text; compared byte by byte.
        states: While the holder is in one of these, it holds the key. Default: every live state.
        on_conflict: ``keep`` (default), ``raise`` or ``replace``.
    """

    key: str
    states: tuple[JobState, ...] = LIVE
    on_conflict: Conflict = Conflict.KEEP


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The immutable part of a job: what a dispatch stores, options resolved.

    Attributes:
        delay: Seconds from acceptance by the store's clock until it is due.
        eta: The instant (µs) at which it is due; not together with ``delay``.
        timeout: Seconds that one attempt may run; ``None`` for no limit.
        expires_in: Seconds from acceptance after which it must not start any more.
        result_ttl: Seconds that a completed or cancelled job is kept; ``None`` is for ever.
        failed_ttl: The same for a failed job.
        after: Its predecessors in a flow; ``delay`` then counts from the end of the last one.
    """

    id: str
    kind: str
    payload: bytes
    queue: str = "default"
    lane: Lane = Lane.ASYNC
    priority: int = 0
    delay: float = 0.0
    eta: int | None = None
    max_attempts: int = 3
    retry: Backoff = Backoff()
    timeout: float | None = None
    expires_in: float | None = None
    result_ttl: float | None = 86_400.0
    failed_ttl: float | None = 2_592_000.0
    tags: Mapping[str, str] = {}
    unique: Unique | None = None
    after: tuple[Edge, ...] = ()


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)


_DEFAULTS: Final = tuple(
    (field.name, field.default)
    for field in msgspec.structs.fields(JobSpec)
    if field.name
    in {"queue", "delay", "retry", "timeout", "expires_in", "result_ttl", "failed_ttl"}
)


def _canonical(spec: JobSpec) -> JobSpec:
    """The same content with the default objects themselves and floats for whole seconds.

    msgspec leaves a default out by identity, and writes 30 and 30.0, 0.0 and -0.0 differently.
    """
    changed: dict[str, Any] = {}
    for name, default in _DEFAULTS:
        value = getattr(spec, name)
        if value is not default:
            if value == default:
                changed[name] = default
            elif type(value) is int or value == 0:
                changed[name] = value + 0.0
    return msgspec.structs.replace(spec, **changed) if changed else spec


def encode_spec(spec: JobSpec) -> bytes:
    """The one encoding of a spec, the same for equal content: drivers store it as it is."""
    return _encoder.encode(_canonical(spec))


def decode_spec(data: bytes) -> JobSpec:
    """Read a stored spec back."""
    return _spec_decoder.decode(data)


def digest(encoded: bytes) -> bytes:
    """Sixteen bytes by which a re-sent job is told from another one with the same id."""
    return blake2b(encoded, digest_size=16).digest()


class Token(msgspec.Struct, frozen=True, gc=False):
    """The fence of one lease. ``delivery`` grows at every claim and never falls."""

    id: str
    delivery: int
    request_id: str


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is kept of an exception: text only, nothing to import on reading."""

    type: str
    message: str
    traceback: str = ""


class Progress(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How far a running job says it is: ``fraction`` from 0 to 1 and a note."""

    fraction: float
    note: str = ""


class Room(msgspec.Struct, frozen=True, gc=False):
    """How many jobs a lane takes: ``free`` start now, ``ahead`` soon.

    Beyond ``free``, a driver hands out only jobs with an attempt to spare and no crash behind
    them: a kill of the worker must not fail jobs that never began.
    """

    free: int
    ahead: int = 0


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request for work. Sent again with the same ``request_id``, it gets the same jobs.

    Attributes:
        queues: The most important first.
        others: After these, serve every other queue, by name.
        rooms: Lanes without room are absent.
        lease: Seconds until others may rescue the jobs.
    """

    queues: tuple[str, ...]
    rooms: Mapping[Lane, Room]
    lease: float
    request_id: str
    worker_id: str
    others: bool = False


class Leased(msgspec.Struct, kw_only=True, gc=False):
    """One claimed job. ``attempt`` already counts this claim."""

    token: Token
    spec: JobSpec
    attempt: int
    crashes: int = 0
    interruptions: int = 0
    parks: int = 0
    cancel_requested: bool = False
    enqueued_at: int = 0
    due_at: int = 0
    expires_at: int | None = None


class Claimed(msgspec.Struct, kw_only=True, gc=False):
    """The reply to a claim.

    Attributes:
        next_due_in: Seconds until the next scheduled job is due.
        now: The store's time (µs), which ``Leased.expires_at`` is to be compared with.
    """

    jobs: list[Leased]
    next_due_in: float | None = None
    now: int = 0


class Renewal(msgspec.Struct, frozen=True, gc=False):
    """One lease to renew; progress travels with it."""

    token: Token
    progress: Progress | None = None


class Extended(StrEnum):
    """What became of a renewal."""

    RENEWED = "renewed"
    LOST = "lost"
    CANCEL = "cancel"
    """Renewed, and the job's cancellation was asked for."""


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended, for the store.

    Attributes:
        event: One of the settles: complete, retry, snooze, park, release, fail, cancel.
        delay: Seconds until the job is due again (retry, snooze, park).
        refund: Give this claim's attempt back (no body was started for it).
        started: The body had begun; a release then counts an interruption.
        follow_ups: Jobs to enqueue in the same step.
    """

    token: Token
    event: Event
    delay: float = 0.0
    result: bytes | None = None
    error: ErrorInfo | None = None
    reason: str = ""
    refund: bool = False
    started: bool = True
    follow_ups: tuple[JobSpec, ...] = ()


class Verdict(StrEnum):
    """What became of a change."""

    APPLIED = "applied"
    ALREADY = "already"
    """This very change was applied before; nothing was done."""
    LOST = "lost"
    """The lease is somebody else's; nothing was done."""


class Settled(msgspec.Struct, frozen=True, gc=False):
    """The reply to one change, with the state that the job is in because of it."""

    verdict: Verdict
    state: JobState | None = None


class Accepted(StrEnum):
    """What became of one job of an enqueue."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """The same id with the same content was there already; nothing happened."""
    CONFLICT = "conflict"
    """The id is taken by other content, or the unique key by a job that may not be replaced."""
    HELD = "held"
    """A live job holds the unique key; ``Enqueued.id`` names it."""
    ORPHAN = "orphan"
    """A predecessor is not there; nothing was stored."""


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """The reply to one job of an enqueue; ``id`` names the job that is stored."""

    verdict: Accepted
    id: str


class Cancelled(StrEnum):
    """What became of a cancel request."""

    CANCELLED = "cancelled"
    """The job had not begun; it never will."""
    REQUESTED = "requested"
    """The job runs; its worker has been told."""
    FINAL = "final"
    """The job had already ended."""
    UNKNOWN = "unknown"
    """There is no such job."""


class Wait(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What to wait for; see ``Driver.wait``.

    Attributes:
        queues, others: As in a claim; a job that is due there ends the wait.
        lanes: Only jobs of these lanes count as work.
        ids: One of these jobs being final ends the wait.
        worker_id: A cancellation asked of a job that this worker holds ends the wait.
        cancelling: Jobs whose cancellation the worker knows of already.
        timeout: Seconds.
    """

    queues: tuple[str, ...] = ()
    others: bool = False
    lanes: frozenset[Lane] = frozenset(Lane)
    ids: frozenset[str] = frozenset()
    worker_id: str | None = None
    cancelling: frozenset[str] = frozenset()
    timeout: float


class Wake(msgspec.Struct, frozen=True, gc=False):
    """Why a wait returned: a hint, never a promise. All false after the timeout."""

    work: bool = False
    finals: frozenset[str] = frozenset()
    cancels: bool = False


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job as users see it, at one moment."""

    id: str
    kind: str
    queue: str
    lane: Lane
    state: JobState
    reason: str = ""
    priority: int = 0
    attempt: int = 0
    max_attempts: int = 3
    crashes: int = 0
    interruptions: int = 0
    parks: int = 0
    delivery: int = 0
    cancel_requested: bool = False
    tags: Mapping[str, str] = {}
    unique: Unique | None = None
    dispatched_at: datetime
    due_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    worker_id: str | None = None
    progress: Progress | None = None
    error: ErrorInfo | None = None


class Fetched(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record, the encoded payload and, where it is kept, the encoded result."""

    record: JobRecord
    payload: bytes = b""
    result: bytes | None = None


class Timing(msgspec.Struct, frozen=True, gc=False):
    """Every time that follows from the one option ``lease`` (seconds, at least 2)."""

    lease: float

    @property
    def beat(self) -> float:
        """Seconds between renewals, and between scans for dead leases."""
        return self.lease / 4

    @property
    def grace(self) -> float:
        """Seconds that a lease may be overdue before anybody ends it."""
        return self.lease / 12

    @property
    def margin(self) -> float:
        """Seconds before its end at which a worker stops trusting a lease."""
        return min(5.0, self.lease / 4)

    @property
    def call(self) -> float:
        """Deadline in seconds of claim, extend, settle and expire."""
        return min(5.0, max(1.0, self.lease / 4))

    def expires(self, now: int) -> int:
        """The instant (µs) from which a lease taken or renewed at ``now`` may be ended."""
        return now + round((self.lease + self.grace) * MICRO)
