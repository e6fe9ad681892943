"""What people ask of a memory store: replay, purge, lists, counts, retention."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
from taskflow._core.records import MICRO
from taskflow._core.states import FINAL, Event, JobState, after, sources_of
from taskflow.drivers.memory.ending import sync

if TYPE_CHECKING:
    from taskflow.drivers.memory.rows import Row
    from taskflow.drivers.memory.tables import Tables

__all__ = ("listed", "prune", "purge", "replay", "stats")

REPLAYABLE: Final = sources_of(Event.REPLAY)
LATELY: Final = 60 * MICRO
"""The time over which ``QueueStats.finished`` counts."""


def replay(tables: Tables, job_id: str, now: int) -> Replayed:
    """Make one ended job available again."""
    row = tables.rows.get(job_id)
    if row is None:
        return Replayed.UNKNOWN
    if row.state not in REPLAYABLE:
        return Replayed.REFUSED
    if row.spec.unique is not None and tables.holders_of(row.spec.unique.key):
        return Replayed.CONFLICT
    row.state = after(row.state, Event.REPLAY)
    row.attempt = row.crashes = row.interruptions = row.parks = 0
    row.cancel_requested, row.reason, row.finished_at, row.expires_at = False, "", None, None
    row.due = now
    tables.hold_key(row)
    tables.place(row)
    sync(tables, row, now)
    return Replayed.REPLAYED


def purge(tables: Tables, queue: str, now: int) -> int:
    """Delete a queue's jobs that neither run nor have ended."""
    gone = [
        row for row in tables.rows.values()
        if row.spec.queue == queue and row.state not in FINAL and row.state is not JobState.RUNNING
    ]  # fmt: skip
    for row in gone:
        del tables.rows[row.spec.id]
        row.state, row.expires_at = JobState.CANCELLED, None
        tables.drop_key(row)
        _cut(tables, row)
        tables.news.finals.append(row.spec.id)
    for row in gone:
        sync(tables, row, now)
    return len(gone)


def _cut(tables: Tables, row: Row) -> None:
    """Forget the edges that lead to a job."""
    for link in row.links:
        links = tables.links.get(link.edge.id)
        if links is not None:
            links.remove(link)
            if not links:
                del tables.links[link.edge.id]


def listed(tables: Tables, query: JobQuery) -> Page:
    """One page, the latest accepted first."""
    before = float("inf") if query.cursor is None else int(query.cursor)
    found: list[Row] = []
    for row in reversed(tables.rows.values()):
        if row.seq < before and query.accepts(row.record(), row.enqueued_at):
            if len(found) == query.limit:
                return Page(jobs=[one.record() for one in found], cursor=str(found[-1].seq))
            found.append(row)
    return Page(jobs=[one.record() for one in found])


def stats(tables: Tables, now: int) -> list[QueueStats]:
    """Every queue that has jobs or is paused."""
    counts: dict[str, Counter[JobState]] = {queue: Counter() for queue in tables.paused}
    oldest: dict[str, int] = {}
    finished: Counter[str] = Counter()
    for row in tables.rows.values():
        queue = row.spec.queue
        counts.setdefault(queue, Counter())[row.state] += 1
        if row.state is JobState.AVAILABLE:
            oldest[queue] = min(row.due, oldest.get(queue, row.due))
        ended = row.state in {JobState.COMPLETED, JobState.FAILED}
        if ended and row.finished_at is not None and row.finished_at > now - LATELY:
            finished[queue] += 1
    return [
        QueueStats(
            queue=queue, counts=dict(counts[queue]), paused=queue in tables.paused,
            oldest=(now - oldest[queue]) / MICRO if queue in oldest else None,
            finished=finished[queue],
        )
        for queue in sorted(counts)
    ]  # fmt: skip


def prune(tables: Tables, limit: int, keep: float, now: int) -> int:
    """Forget ended jobs whose time is over."""
    gone: list[Row] = []
    for row in tables.rows.values():
        if len(gone) == limit:
            break
        if _is_over(tables, row, keep, now):
            gone.append(row)
    for row in gone:
        del tables.rows[row.spec.id]
        tables.links.pop(row.spec.id, None)  # what its edges have become stays with the successors
        _cut(tables, row)
    return len(gone)


def _is_over(tables: Tables, row: Row, keep: float, now: int) -> bool:
    if row.state not in FINAL or row.finished_at is None:
        return False
    ttl = row.spec.failed_ttl if row.state is JobState.FAILED else row.spec.result_ttl
    if ttl is None or now < row.finished_at + max(ttl, keep) * MICRO:
        return False
    return all(link.successor.state in FINAL for link in tables.links.get(row.spec.id, ()))
