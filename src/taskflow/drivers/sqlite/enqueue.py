"""Storing jobs: known ids, unique keys, and the first state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.records import (
    Accepted,
    Conflict,
    Enqueued,
    JobSpec,
    Unique,
    decode_spec,
    digest,
    encode_spec,
)
from taskflow._core.states import Event, JobState, sources_of
from taskflow.drivers.sqlite import rows
from taskflow.drivers.sqlite.ending import cancel_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("enqueue",)

_KNOWN: Final = (
    "SELECT id, digest FROM {jobs} WHERE id IN ({ids})"
    " UNION ALL SELECT id, digest FROM {finished} WHERE id IN ({ids})"
    " UNION ALL SELECT id, digest FROM {dead} WHERE id IN ({ids})"
)
_HOLDERS: Final = "SELECT seq, id, state, spec FROM {jobs} WHERE unique_key = ? ORDER BY seq"


def enqueue(tx: Tx, jobs: Sequence[JobSpec]) -> list[Enqueued]:
    """Store jobs in the order given; see ``Driver.enqueue``."""
    known = dict(tx.by_ids(_KNOWN, [spec.id for spec in jobs]))
    replies: list[Enqueued] = []
    pending: list[tuple[object, ...]] = []
    for spec in jobs:
        encoded = encode_spec(spec)
        mark = digest(encoded)
        if spec.id in known:
            same = known[spec.id] == mark
            verdict = Accepted.DUPLICATE if same else Accepted.CONFLICT
            replies.append(Enqueued(verdict, spec.id))
            continue
        if spec.unique is not None:
            _flush(tx, pending)
            if (refusal := _take_key(tx, spec.unique)) is not None:
                replies.append(refusal)
                continue
        known[spec.id] = mark
        pending.append(rows.fresh(tx, spec, encoded, mark))
        tx.news.work.add((spec.queue, spec.lane))
        replies.append(Enqueued(Accepted.ACCEPTED, spec.id))
    _flush(tx, pending)
    return replies


def _flush(tx: Tx, pending: list[tuple[object, ...]]) -> None:
    if pending:
        tx.many(rows.INSERT, pending)
        pending.clear()


def _take_key(tx: Tx, unique: Unique) -> Enqueued | None:
    """Free the key for a new job, or say why it cannot have it."""
    holders = [row for row in tx.run(_HOLDERS, (unique.key,)).fetchall() if _holds(row)]
    if not holders:
        return None
    if unique.on_conflict is Conflict.KEEP:
        return Enqueued(Accepted.HELD, holders[0][1])
    replaceable = sources_of(Event.CANCEL) - {JobState.RUNNING}
    if unique.on_conflict is Conflict.RAISE or any(row[2] not in replaceable for row in holders):
        return Enqueued(Accepted.CONFLICT, holders[0][1])
    cancel_rows(tx, [row[0] for row in holders], reason="replaced")
    return None


def _holds(row: tuple[Any, ...]) -> bool:
    unique = decode_spec(row[3]).unique
    return unique is not None and row[2] in unique.states
