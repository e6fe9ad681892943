"""How a job looks in a row, and a row as what crosses the seam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from taskflow._core.records import (
    LAST,
    ErrorInfo,
    Fetched,
    JobRecord,
    JobSpec,
    Lane,
    Leased,
    Progress,
    Token,
    decode_spec,
    instant,
    later,
)
from taskflow._core.states import Event, JobState, after

if TYPE_CHECKING:
    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("INSERT", "columns_of", "fetched", "fresh", "later", "leased", "pack")

INSERT: Final = (
    "INSERT INTO {jobs} (id, kind, queue, lane, priority, state, due, max_attempts, expires_at,"
    " enqueued_at, unique_key, result_ttl, failed_ttl, spec, digest)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_progress = msgspec.msgpack.Decoder(Progress)
_error = msgspec.msgpack.Decoder(ErrorInfo)
_encode = msgspec.msgpack.Encoder().encode


def pack(value: Progress | ErrorInfo | None) -> bytes | None:
    """Progress or an error as it is stored."""
    return None if value is None else _encode(value)


def _ttl(seconds: float | None) -> int | None:
    return None if seconds is None else later(0, seconds)


def columns_of(spec: JobSpec) -> tuple[object, ...]:
    """What only the hot table says of a job: unique key and both times to keep it."""
    key = None if spec.unique is None else spec.unique.key
    return key, _ttl(spec.result_ttl), _ttl(spec.failed_ttl)


def fresh(
    tx: Tx, spec: JobSpec, encoded: bytes, mark: bytes, *, blocked: bool = False
) -> tuple[object, ...]:
    """The parameters of ``INSERT`` for a job accepted now."""
    due = later(tx.now, spec.delay) if spec.eta is None else min(spec.eta, LAST)
    state = after(None, Event.ENQUEUE, due_later=due > tx.now, blocked=blocked)
    expires_at = None if spec.expires_in is None else later(tx.now, spec.expires_in)
    return (
        spec.id, spec.kind, spec.queue, spec.lane, spec.priority, state, due, spec.max_attempts,
        expires_at, tx.now, *columns_of(spec), encoded, mark,
    )  # fmt: skip


def leased(row: tuple[Any, ...]) -> Leased:
    """A row of ``{leased}`` as a claimed job."""
    (_, id_, delivery, request_id, spec, attempt, crashes, interruptions, parks, asked,
     enqueued_at, due, _, _, expires_at, *_) = row  # fmt: skip
    return Leased(
        token=Token(id_, delivery, request_id), spec=decode_spec(spec), attempt=attempt,
        crashes=crashes, interruptions=interruptions, parks=parks, cancel_requested=bool(asked),
        enqueued_at=enqueued_at, due_at=due, expires_at=expires_at,
    )  # fmt: skip


def fetched(row: tuple[Any, ...], finished_at: int | None, result: bytes | None) -> Fetched:
    """A row of ``{record}`` as users see it."""
    (id_, state, reason, attempt, crashes, interruptions, parks, delivery, asked, enqueued_at,
     due, started_at, expires_at, worker_id, progress, error, stored, _) = row  # fmt: skip
    spec = decode_spec(stored)
    record = JobRecord(
        id=id_, kind=spec.kind, queue=spec.queue, lane=Lane(spec.lane), state=JobState(state),
        reason=reason, priority=spec.priority, attempt=attempt, max_attempts=spec.max_attempts,
        crashes=crashes, interruptions=interruptions, parks=parks, delivery=delivery,
        cancel_requested=bool(asked), tags=spec.tags, unique=spec.unique,
        dispatched_at=_at(enqueued_at), due_at=_at(due), started_at=instant(started_at),
        finished_at=instant(finished_at), expires_at=instant(expires_at), worker_id=worker_id,
        progress=None if progress is None else _progress.decode(progress),
        error=None if error is None else _error.decode(error),
    )  # fmt: skip
    return Fetched(record=record, payload=spec.payload, result=result)


def _at(us: int) -> Any:
    return instant(us)
