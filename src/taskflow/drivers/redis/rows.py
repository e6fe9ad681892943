"""Jobs and changes as arguments of scripts, and rows as what crosses the seam."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taskflow._core.flows import On
from taskflow._core.records import (
    LAST,
    Change,
    ErrorInfo,
    Fetched,
    JobRecord,
    JobSpec,
    Lane,
    Leased,
    Progress,
    Token,
    Unique,
    decode_spec,
    encode_spec,
    instant,
    later,
)
from taskflow._core.states import FINAL, SETTLES, Event, JobState, after
from taskflow.errors import IllegalTransitionError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("change_args", "draft", "encode", "leased", "record")

encode: Final = msgspec.msgpack.Encoder().encode
_progress: Final = msgspec.msgpack.Decoder(Progress)
_error: Final = msgspec.msgpack.Decoder(ErrorInfo)
_MOST: Final = 2**31 - 1
_EDGES: Final = {on: index for index, on in enumerate(On)}
_HEADER: Final = b"\xdc\x00\x1f"
"""What makes an array of 31 of a row, which is stored without."""


class _Row(msgspec.Struct, array_like=True, gc=False):
    """As lua/lib/rows.lua has it; 0 and '' are none."""

    state: JobState
    delivery: int
    request_id: str
    cancel_requested: bool
    attempt: int
    crashes: int
    interruptions: int
    parks: int
    worker_id: str
    started_at: int
    due: int
    finished_at: int
    reason: str
    fin: str
    pending: int
    bad: int
    links: int
    is_keyed: bool
    place: str
    result_ttl: int | bool
    failed_ttl: int | bool
    priority: int
    max_attempts: int
    delay: int
    eta: int | bool
    key: str | bool
    key_states: msgspec.Raw
    on_conflict: str | bool
    expires_in: int | bool
    seq: int
    enqueued_at: int

    @property
    def expires_at(self) -> int | None:
        """The instant from which on it may not start any more."""
        return None if self.expires_in is False else self.enqueued_at + self.expires_in


_row: Final = msgspec.msgpack.Decoder(_Row)


def _span(seconds: float | None) -> int | bool:
    """Microseconds; False is none."""
    return False if seconds is None else later(0, seconds)


def draft(spec: JobSpec) -> tuple[bytes, bytes, bytes, bytes]:
    """A job as accept.lua wants it."""
    head = _head(
        spec.queue, spec.lane, spec.result_ttl, spec.failed_ttl, spec.priority, spec.max_attempts,
        spec.delay, spec.eta, spec.unique, spec.expires_in,
    )  # fmt: skip
    after_ = b""
    if spec.after:
        after_ = encode(tuple(dict.fromkeys((edge.id, _EDGES[edge.on]) for edge in spec.after)))
    return spec.id.encode(), head, encode_spec(spec), after_


@lru_cache(maxsize=512)
def _head(
    queue: str, lane: Lane, result_ttl: float | None, failed_ttl: float | None, priority: int,
    max_attempts: int, delay: float, eta: int | None, unique: Unique | None,
    expires_in: float | None,
) -> bytes:  # fmt: skip
    """What the store itself must know; the same for most jobs of one kind."""
    states = () if unique is None else (one for one in unique.states if one not in FINAL)
    head = (
        f"{queue}\0{lane.value}", _span(result_ttl), _span(failed_ttl), priority,
        min(max_attempts, _MOST), later(0, delay),
        False if eta is None else max(min(eta, LAST), -LAST),
        False if unique is None else unique.key,
        False if unique is None else {one.value: True for one in states},
        False if unique is None else unique.on_conflict.value, _span(expires_in),
    )  # fmt: skip
    return encode(head)[1:]  # 1: no array


def change_args(changes: Sequence[Change]) -> tuple[object, list[bytes]]:
    """Changes as settle.lua wants them, and the bytes that they name by number."""
    blobs: list[bytes] = []
    kinds: dict[tuple[object, ...], int] = {}
    args: list[tuple[object, ...]] = []
    for change in changes:
        token = change.token
        kind = _kind(change)
        result = 0
        if change.result is not None:
            blobs.append(change.result)
            result = len(blobs)
        head = (
            token.id, token.delivery, token.request_id, kinds.setdefault(kind, len(kinds) + 1),
            result,
        )  # fmt: skip
        args.append(head + _more(change, blobs))
    return (tuple(kinds), args), blobs


def _kind(change: Change) -> tuple[object, ...]:
    event = change.event
    states = _SETTLED.get(event)
    if states is None:
        raise IllegalTransitionError(state=JobState.RUNNING, event=event)
    return (
        event.value, *states, int(change.refund), int(event is Event.RELEASE and change.started),
        int(event is Event.PARK),
    )  # fmt: skip


def _more(change: Change, blobs: list[bytes]) -> tuple[object, ...]:
    """What few changes have."""
    if not (change.delay or change.reason or change.error or change.follow_ups):
        return ()
    error = 0
    if change.error is not None:
        blobs.append(encode(change.error))
        error = len(blobs)
    first = len(blobs) + 1
    for spec in change.follow_ups:
        blobs.extend(draft(spec))
    count = len(change.follow_ups)
    return later(0, change.delay), change.reason, error, first if count else 0, count


_SETTLED: Final = {
    event: (
        after(JobState.RUNNING, event, by_holder=True).value,
        after(JobState.RUNNING, event, by_holder=True, cancel_requested=True).value,
    )
    for event in SETTLES
}
"""The state that each settle leads to, and where a cancellation was asked for."""


def leased(raw: bytes, spec: bytes) -> Leased:
    """A row of a claim."""
    row = _row.decode(_HEADER + raw)
    decoded = decode_spec(spec)
    return Leased(
        token=Token(decoded.id, row.delivery, row.request_id), spec=decoded, attempt=row.attempt,
        crashes=row.crashes, interruptions=row.interruptions, parks=row.parks,
        cancel_requested=row.cancel_requested, enqueued_at=row.enqueued_at, due_at=row.due,
        expires_at=row.expires_at,
    )  # fmt: skip


def record(
    raw: bytes, encoded: bytes, result: bytes | None, error: bytes | None, progress: bytes | None
) -> tuple[Fetched, int]:
    """A job as users see it, and its instant of acceptance (µs)."""
    row, spec = _row.decode(_HEADER + raw), decode_spec(encoded)
    dispatched_at: Any = instant(row.enqueued_at)
    due_at: Any = instant(row.due)
    shown = JobRecord(
        id=spec.id, kind=spec.kind, queue=spec.queue, lane=spec.lane, state=row.state,
        reason=row.reason, priority=spec.priority, attempt=row.attempt,
        max_attempts=spec.max_attempts, crashes=row.crashes, interruptions=row.interruptions,
        parks=row.parks, delivery=row.delivery, cancel_requested=row.cancel_requested,
        tags=spec.tags, unique=spec.unique, dispatched_at=dispatched_at, due_at=due_at,
        started_at=instant(row.started_at or None), finished_at=instant(row.finished_at or None),
        expires_at=instant(row.expires_at), worker_id=row.worker_id or None,
        progress=None if progress is None else _progress.decode(progress),
        error=None if error is None else _error.decode(error),
    )  # fmt: skip
    return Fetched(record=shown, payload=spec.payload, result=result), row.enqueued_at
