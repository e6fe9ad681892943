"""Storing jobs: known ids, unique keys, and the first state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow._core.flows import fires
from taskflow._core.records import (
    Accepted,
    Conflict,
    Enqueued,
    JobSpec,
    Unique,
    digest,
    encode_spec,
)
from taskflow._core.states import Event, JobState, sources_of
from taskflow.drivers.sqlite import rows
from taskflow.drivers.sqlite.ending import cancel_rows, skip_rows
from taskflow.drivers.sqlite.flows import add_edges, states_of, weigh
from taskflow.drivers.sqlite.keys import holders_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("enqueue",)

_KNOWN: Final = (
    "SELECT id, digest FROM {jobs} WHERE id IN ({ids})"
    " UNION ALL SELECT id, digest FROM {finished} WHERE id IN ({ids})"
    " UNION ALL SELECT id, digest FROM {dead} WHERE id IN ({ids})"
)


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
        if spec.after and _is_orphan(tx, spec, known):
            replies.append(Enqueued(Accepted.ORPHAN, spec.id))
            continue
        if spec.unique is not None:
            _flush(tx, pending)
            if (refusal := _take_key(tx, spec.unique)) is not None:
                replies.append(refusal)
                continue
        known[spec.id] = mark
        if spec.after:
            _flush(tx, pending)
            _follow(tx, spec, encoded, mark)
            replies.append(Enqueued(Accepted.ACCEPTED, spec.id))
            continue
        pending.append(rows.fresh(tx, spec, encoded, mark))
        tx.news.work.add((spec.queue, spec.lane))
        replies.append(Enqueued(Accepted.ACCEPTED, spec.id))
    _flush(tx, pending)
    return replies


def _flush(tx: Tx, pending: list[tuple[object, ...]]) -> None:
    if pending:
        tx.many(rows.INSERT, pending)
        pending.clear()


def _is_orphan(tx: Tx, spec: JobSpec, known: Container[str]) -> bool:
    missing = [edge.id for edge in spec.after if edge.id not in known]
    return len(states_of(tx, missing)) < len(set(missing))


def _follow(tx: Tx, spec: JobSpec, encoded: bytes, mark: bytes) -> None:
    """Store a job with its edges; all its predecessors are there."""
    states = states_of(tx, [edge.id for edge in spec.after])
    edges = [(edge, fires(edge.on, states[edge.id])) for edge in spec.after]
    blocked = not all(fired for _, fired in edges)
    tx.run(rows.INSERT, rows.fresh(tx, spec, encoded, mark, blocked=blocked))
    add_edges(tx, spec.id, edges)
    tx.news.work.add((spec.queue, spec.lane))
    skip_rows(tx, weigh(tx, spec.id))


def _take_key(tx: Tx, unique: Unique) -> Enqueued | None:
    """Free the key for a new job, or say why it cannot have it."""
    holders = holders_of(tx, unique.key)
    if not holders:
        return None
    if unique.on_conflict is Conflict.KEEP:
        return Enqueued(Accepted.HELD, holders[0][1])
    replaceable = sources_of(Event.CANCEL) - {JobState.RUNNING}
    if unique.on_conflict is Conflict.RAISE or any(row[2] not in replaceable for row in holders):
        return Enqueued(Accepted.CONFLICT, holders[0][1])
    cancel_rows(tx, [row[0] for row in holders], reason="replaced")
    return None
