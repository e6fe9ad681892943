"""Ends of jobs in memory, and what they mean to the successors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskflow._core.flows import CALL_EDGES, JOB_EDGES, SKIPPED, fires
from taskflow._core.states import Event, JobState, after
from taskflow.drivers.memory.tables import due_of

if TYPE_CHECKING:
    from taskflow.drivers.memory.rows import Link, Row
    from taskflow.drivers.memory.tables import Tables

__all__ = ("end", "release_successors", "sync", "weigh")


def end(tables: Tables, row: Row, now: int, reason: str, result: bytes | None = None) -> None:
    """A job has reached a final state: free its key, tell who waits and its successors."""
    row.reason = reason
    row.finished_at = now
    row.result = result if row.spec.result_ttl != 0 or row.spec.id in tables.links else None
    tables.drop_key(row)
    tables.news.finals.append(row.spec.id)
    sync(tables, row, now)


def sync(tables: Tables, row: Row, now: int) -> None:
    """Tell a job's edges its state: at once where they are few, else later, some at a time."""
    if not tables.links:
        return
    count = len(tables.links.get(row.spec.id, ()))
    if count > min(JOB_EDGES, tables.edge_budget):
        tables.unsynced.append(row)
    elif count:
        tables.edge_budget -= count
        _tell_edges(tables, row, now, count)


def release_successors(tables: Tables, now: int) -> None:
    """Work off what ends before this call left undone."""
    budget = CALL_EDGES
    while tables.unsynced and budget > 0:
        row = tables.unsynced.popleft()
        budget -= _tell_edges(tables, row, now, budget)
        if budget <= 0:
            tables.unsynced.appendleft(row)


def _tell_edges(tables: Tables, row: Row, now: int, limit: int) -> int:
    told = 0
    for link in tables.links.get(row.spec.id, ()):
        fired = None if row.spec.id in tables.rows else False
        if fired is None:
            fired = fires(link.edge.on, row.state)
        if link.fired is fired:
            continue
        if told == limit:
            return told
        told += 1
        link.fired = fired
        weigh(tables, link.successor, now)
    if row.spec.id not in tables.rows:
        tables.links.pop(row.spec.id, None)
    return told


def weigh(tables: Tables, row: Row, now: int) -> None:
    """An edge of this job changed: unblock it, skip it, or have it wait again."""
    if row.state is JobState.CANCELLED and row.reason == SKIPPED:
        _rejoin(tables, row)
    if row.state is not JobState.WAITING:
        return
    if _is_hopeless(row.links):
        row.state = after(row.state, Event.SKIP)
        row.reason, row.finished_at = SKIPPED, now
        tables.drop_key(row)
        tables.news.finals.append(row.spec.id)
        tables.unsynced.append(row)
    elif all(link.fired for link in row.links):
        row.due = due_of(row.spec, now)
        row.state = after(row.state, Event.UNBLOCK, due_later=row.due > now)
        tables.place(row)


def _rejoin(tables: Tables, row: Row) -> None:
    if _is_hopeless(row.links) or row.spec.id not in tables.rows:
        return
    if row.spec.unique is not None and tables.holders_of(row.spec.unique.key):
        return
    row.state = after(row.state, Event.REJOIN)
    row.reason, row.finished_at = "", None
    tables.hold_key(row)
    tables.place(row)
    tables.unsynced.append(row)


def _is_hopeless(links: tuple[Link, ...]) -> bool:
    return any(link.fired is False for link in links)
