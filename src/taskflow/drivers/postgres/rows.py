"""How jobs and changes look in arrays of columns, and rows as what crosses the seam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from taskflow._core.records import (
    LAST,
    Change,
    ErrorInfo,
    Fetched,
    JobRecord,
    JobSpec,
    Leased,
    Progress,
    Token,
    decode_spec,
    encode_spec,
    instant,
    later,
)
from taskflow._core.states import FINAL, SETTLES, Event, JobState, after
from taskflow.errors import IllegalTransitionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = (
    "ANYTHING", "ITEM", "LONGEST", "PART", "changed", "drafts", "leased", "pack", "plain",
    "record", "safe", "tag_text",
)  # fmt: skip

ITEM: Final = "\x1e"
PART: Final = "\x1f"
"""What separates items, and the parts of one, where several stand in one text."""

LONGEST: Final = 7000
"""Bytes of one notification; PostgreSQL takes less than 8000."""
ANYTHING: Final = "*"
"""Instead of news that are too long: look yourself."""

_ESCAPES: Final = {"\x1a": "\x1a0", "\0": "\x1a1", ITEM: "\x1a2", PART: "\x1a3"}
_TABLE: Final = str.maketrans(_ESCAPES)
_MOST: Final = 2**31 - 1

_progress = msgspec.msgpack.Decoder(Progress)
_error = msgspec.msgpack.Decoder(ErrorInfo)
_encode = msgspec.msgpack.Encoder().encode


def safe(text: str) -> str:
    """Text as it is stored: NUL, which PostgreSQL cannot hold, and our separators escaped."""
    return text if text.isprintable() else text.translate(_TABLE)


def plain(text: str) -> str:
    """Stored text as it was."""
    if "\x1a" not in text:
        return text
    for char, escape in reversed(_ESCAPES.items()):
        if char != "\x1a":
            text = text.replace(escape, char)
    return text.replace("\x1a0", "\x1a")


def pack(value: Progress | ErrorInfo | None) -> bytes | None:
    """Progress or an error as it is stored."""
    return None if value is None else _encode(value)


def _span(seconds: float | None) -> int | None:
    return None if seconds is None else later(0, seconds)


def tag_text(tags: Iterable[tuple[str, str]]) -> str:
    """Tags as one text, in which each stands between two ``ITEM``."""
    return ITEM + "".join(f"{safe(name)}{PART}{safe(value)}{ITEM}" for name, value in tags)


def _draft(spec: JobSpec) -> tuple[object, ...]:
    unique = spec.unique
    return (
        safe(spec.id), safe(spec.kind), safe(spec.queue), spec.lane.value, spec.priority,
        later(0, spec.delay), None if spec.eta is None else max(min(spec.eta, LAST), -LAST),
        min(spec.max_attempts, _MOST), _span(spec.expires_in), _span(spec.result_ttl),
        _span(spec.failed_ttl), tag_text(spec.tags.items()) if spec.tags else None,
        None if unique is None else safe(unique.key),
        None if unique is None else ",".join(unique.states),
        None if unique is None else unique.on_conflict.value,
        ITEM.join(safe(edge.id) + PART + edge.on for edge in spec.after) or None,
        encode_spec(spec),
    )  # fmt: skip


def drafts(specs: Sequence[JobSpec]) -> list[list[object]]:
    """Jobs as the arrays of an enqueue, in the order of ``names.DRAFT``."""
    return [list(column) for column in zip(*map(_draft, specs), strict=True)]


def _way(change: Change) -> tuple[object, ...]:
    event = change.event
    if event not in SETTLES:
        raise IllegalTransitionError(state=JobState.RUNNING, event=event)
    state = after(JobState.RUNNING, event, by_holder=True)
    asked = after(JobState.RUNNING, event, cancel_requested=True, by_holder=True)
    return (
        safe(change.token.request_id), event.value, state.value, asked.value,
        state in FINAL and asked in FINAL, later(0, change.delay), pack(change.error),
        safe(change.reason), int(change.refund),
        int(event is Event.RELEASE and change.started), int(event is Event.PARK),
    )  # fmt: skip


def changed(changes: Sequence[Change]) -> list[list[object]]:
    """Changes as the arrays of a settle, in the order of ``names.CHANGE`` and ``names.WAY``.

    Of many completed jobs of one claim all but id, delivery and result is the same.
    """
    ways: dict[tuple[object, ...], int] = {}
    numbers: list[object] = []
    number, last = 0, None
    for change in changes:
        if last is None or not _is_alike(change, last):
            last = change
            number = ways.setdefault(_way(change), len(ways) + 1)
        numbers.append(number)
    return [
        [safe(change.token.id) for change in changes],
        [change.token.delivery for change in changes], numbers,
        [change.result for change in changes],
        *(list(column) for column in zip(*ways, strict=True)),
    ]  # fmt: skip


def _is_alike(one: Change, other: Change) -> bool:
    return (
        one.event is other.event is Event.COMPLETE
        and one.token.request_id == other.token.request_id
        and one.delay == other.delay
        and one.error is other.error
        and one.reason == other.reason
        and one.refund == other.refund
    )


def leased(row: Any, request_id: str) -> Leased:
    """A row of a claim, of its columns."""
    (id_, _, _, _, delivery, attempt, crashes, interruptions, parks, asked, enqueued_at, due,
     expires_at, spec) = row  # fmt: skip
    return Leased(
        token=Token(plain(id_), delivery, request_id), spec=decode_spec(spec), attempt=attempt,
        crashes=crashes, interruptions=interruptions, parks=parks, cancel_requested=asked,
        enqueued_at=enqueued_at, due_at=due, expires_at=expires_at,
    )  # fmt: skip


def record(row: Any, result: bytes | None = None) -> Fetched:
    """A row that begins with the columns of a record as users see it."""
    (_, state, reason, attempt, crashes, interruptions, parks, delivery, asked, enqueued_at, due,
     started_at, finished_at, expires_at, worker_id, progress, error, stored, *_) = row  # fmt: skip
    spec = decode_spec(stored)
    dispatched_at: Any = instant(enqueued_at)
    due_at: Any = instant(due)
    shown = JobRecord(
        id=spec.id, kind=spec.kind, queue=spec.queue, lane=spec.lane, state=JobState(state),
        reason=plain(reason), priority=spec.priority, attempt=attempt,
        max_attempts=spec.max_attempts, crashes=crashes, interruptions=interruptions, parks=parks,
        delivery=delivery, cancel_requested=asked, tags=spec.tags, unique=spec.unique,
        dispatched_at=dispatched_at, due_at=due_at, started_at=instant(started_at),
        finished_at=instant(finished_at), expires_at=instant(expires_at),
        worker_id=None if worker_id is None else plain(worker_id),
        progress=None if progress is None else _progress.decode(progress),
        error=None if error is None else _error.decode(error),
    )  # fmt: skip
    return Fetched(record=shown, result=result, payload=spec.payload)
