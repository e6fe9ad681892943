"""Accepting jobs in memory."""

from __future__ import annotations

from typing import Final

from taskflow._core.flows import fires
from taskflow._core.records import (
    Accepted,
    Conflict,
    Enqueued,
    JobSpec,
    Unique,
    encode_spec,
    later,
)
from taskflow._core.states import Event, JobState, after, sources_of
from taskflow.drivers.memory.ending import end, weigh
from taskflow.drivers.memory.rows import Link, Row
from taskflow.drivers.memory.tables import Tables, due_of

__all__ = ("accept",)

REPLACEABLE: Final = sources_of(Event.CANCEL) - {JobState.RUNNING}


def accept(tables: Tables, spec: JobSpec, now: int) -> Enqueued:
    """Store one job, or say why not."""
    known = tables.rows.get(spec.id)
    if known is not None:
        same = known.spec == spec or encode_spec(known.spec) == encode_spec(spec)
        return Enqueued(Accepted.DUPLICATE if same else Accepted.CONFLICT, spec.id)
    if any(edge.id not in tables.rows for edge in spec.after):
        return Enqueued(Accepted.ORPHAN, spec.id)
    refusal = None if spec.unique is None else _take_key(tables, spec.unique, now)
    if refusal is not None:
        return refusal
    row = _fresh(tables, spec, now)
    tables.rows[spec.id] = row
    tables.hold_key(row)
    tables.place(row)
    if spec.after:
        weigh(tables, row, now)
    return Enqueued(Accepted.ACCEPTED, spec.id)


def _fresh(tables: Tables, spec: JobSpec, now: int) -> Row:
    tables.seq += 1
    due = due_of(spec, now)
    row = Row(spec, tables.seq, now, due)
    for edge in spec.after:
        link = Link(edge, row, fires(edge.on, tables.rows[edge.id].state))
        row.links = (*row.links, link)
        tables.links.setdefault(edge.id, []).append(link)
    blocked = not all(link.fired for link in row.links)
    row.state = after(None, Event.ENQUEUE, due_later=due > now, blocked=blocked)
    if spec.expires_in is not None:
        row.expires_at = later(now, spec.expires_in)
    return row


def _take_key(tables: Tables, unique: Unique, now: int) -> Enqueued | None:
    """Free the key for a new job, or the reply when it cannot have it."""
    holders = tables.holders_of(unique.key)
    if not holders:
        return None
    if unique.on_conflict is Conflict.KEEP:
        return Enqueued(Accepted.HELD, holders[0].spec.id)
    running = any(row.state not in REPLACEABLE for row in holders)
    if unique.on_conflict is Conflict.RAISE or running:
        return Enqueued(Accepted.CONFLICT, holders[0].spec.id)
    for holder in holders:
        holder.state = after(holder.state, Event.CANCEL)
        end(tables, holder, now, "replaced")
    return None
