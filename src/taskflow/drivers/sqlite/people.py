"""What people ask: replay, purge, pause, lists, counts, and retention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
from taskflow._core.records import MICRO, JobRecord, Lane, micros
from taskflow._core.states import Event, JobState, sources_of
from taskflow.drivers.sqlite import rows
from taskflow.drivers.sqlite.ending import tell_successors
from taskflow.drivers.sqlite.flows import forget_edges, forget_origins
from taskflow.drivers.sqlite.queues import stage
from taskflow.drivers.sqlite.restoring import restore
from taskflow.drivers.sqlite.tx import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("list_jobs", "pause", "prune", "purge", "replay", "resume", "stats")

LATELY: Final = 60 * MICRO
"""The time over which ``QueueStats.finished`` counts."""
WINDOW: Final = 5_000
"""Jobs that one call of ``list_jobs`` looks at, so that a rare kind stops nobody else."""
SCAN: Final = 20_000
"""Ended jobs that one call of ``prune`` looks at."""
REPLAYABLE: Final = sources_of(Event.REPLAY)

_STATES: Final = (
    "SELECT id, state FROM {jobs} WHERE id IN ({ids})"
    " UNION ALL SELECT id, state FROM {finished} WHERE id IN ({ids})"
    " UNION ALL SELECT id, state FROM {dead} WHERE id IN ({ids})"
)
_PURGE: Final = "DELETE FROM {jobs} WHERE {lapsable} AND queue = ? RETURNING id"
_PAUSE: Final = "INSERT OR IGNORE INTO {paused} (queue) VALUES (?)"
_RESUME: Final = "DELETE FROM {paused} WHERE queue = ? RETURNING queue"
_HOT_COUNTS: Final = "SELECT queue, state, count(*), min(due), 0 FROM {jobs} GROUP BY queue, state"
_COLD_COUNTS: Final = "SELECT queue, state, count(*), NULL, 0 FROM {finished} GROUP BY queue, state"
_LATE_COUNTS: Final = (
    "SELECT queue, state, 0, NULL, count(*) FROM {finished} WHERE finished_at > ?"
    " GROUP BY queue, state"
)
_OVER: Final = (
    "SELECT seq, id FROM (SELECT seq, id, finished_at FROM {finished} WHERE forget_at <= ?"
    " ORDER BY forget_at LIMIT ?) f WHERE finished_at <= ? AND NOT EXISTS (SELECT 1 FROM {edges} e"
    " JOIN {jobs} j ON j.id = e.to_id WHERE e.from_id = f.id) LIMIT ?"
)
_FORGET: Final = "DELETE FROM {finished} WHERE seq IN (SELECT value FROM json_each(?))"
_FORGET_RESULTS: Final = "DELETE FROM {results} WHERE seq IN (SELECT value FROM json_each(?))"
_LAST: Final = (
    "SELECT max(coalesce((SELECT max(seq) FROM {jobs}), 0),"
    " coalesce((SELECT max(seq) FROM {finished}), 0), coalesce((SELECT max(seq) FROM {dead}), 0))"
)
_LISTED: Final = (
    "SELECT {record}, NULL FROM {jobs} WHERE {listed}"
    " UNION ALL SELECT {record}, finished_at FROM {finished} WHERE {listed}"
    " UNION ALL SELECT {record}, finished_at FROM {dead} WHERE {listed} ORDER BY seq DESC"
)


def _dead(sql: str) -> str:
    return sql.replace("{finished}", "{dead}")


def replay(tx: Tx, ids: Sequence[str]) -> list[Replayed]:
    """Make ended jobs available again; see ``Driver.replay``."""
    return [_replay(tx, job_id) for job_id in ids]


def _replay(tx: Tx, job_id: str) -> Replayed:
    found = dict(tx.by_ids(_STATES, [job_id]))
    if job_id not in found:
        return Replayed.UNKNOWN
    if JobState(found[job_id]) not in REPLAYABLE:
        return Replayed.REFUSED
    if not restore(tx, job_id, Event.REPLAY):
        return Replayed.CONFLICT
    tell_successors(tx, [job_id])
    return Replayed.REPLAYED


def purge(tx: Tx, queue: str) -> int:
    """Delete what neither runs nor has ended; see ``Driver.purge``."""
    ids = [row[0] for row in tx.run(_PURGE, (queue,)).fetchall()]
    forget_edges(tx, ids)
    tell_successors(tx, ids)
    tx.news.finals.update(ids)
    return len(ids)


def pause(tx: Tx, queues: Sequence[str]) -> None:
    """Hand out nothing of these queues."""
    tx.many(_PAUSE, [(queue,) for queue in queues])


def resume(tx: Tx, queues: Sequence[str]) -> None:
    """Hand out again, and wake who waits."""
    for queue in queues:
        if tx.run(_RESUME, (queue,)).fetchone() is not None:
            tx.news.work.update((queue, lane) for lane in Lane)


def stats(tx: Tx) -> list[QueueStats]:
    """Counts by queue and state; see ``Driver.stats``."""
    stage(tx, SCAN)
    counts: dict[str, dict[JobState, int]] = {queue: {} for queue in tx.paused}
    oldest: dict[str, int] = {}
    finished: dict[str, int] = {}
    since = (tx.now - LATELY,)
    for sql, params in (
        (_HOT_COUNTS, ()), (_COLD_COUNTS, ()), (_dead(_COLD_COUNTS), ()),
        (_LATE_COUNTS, since), (_dead(_LATE_COUNTS), since),
    ):  # fmt: skip
        for queue, word, count, due, lately in tx.run(sql, params):
            state = JobState(word)
            if count:
                counts.setdefault(queue, {})[state] = count
            if state is JobState.AVAILABLE:
                oldest[queue] = due
            if state is not JobState.CANCELLED:
                finished[queue] = finished.get(queue, 0) + lately
    return [
        QueueStats(
            queue=queue, counts=counts[queue], paused=queue in tx.paused,
            oldest=(tx.now - oldest[queue]) / MICRO if queue in oldest else None,
            finished=finished.get(queue, 0),
        )
        for queue in sorted(counts)
    ]  # fmt: skip


def prune(tx: Tx, limit: int, keep: float) -> int:
    """Forget ended jobs whose time is over; see ``Driver.prune``."""
    gone = 0
    until = tx.now - round(keep * MICRO)
    for is_dead in (False, True):
        select, forget = (_dead(_OVER), _dead(_FORGET)) if is_dead else (_OVER, _FORGET)
        found = tx.run(select, (tx.now, SCAN, until, limit - gone)).fetchall()
        if not found:
            continue
        these, ids = listed(row[0] for row in found), [row[1] for row in found]
        tx.run(forget, (these,))
        tx.run(_FORGET_RESULTS, (these,))
        forget_edges(tx, ids)
        forget_origins(tx, ids)
        gone += len(found)
    return gone


def list_jobs(tx: Tx, query: JobQuery) -> Page:
    """One page, the latest accepted first; looks at a bounded number of jobs."""
    top = tx.run(_LAST).fetchone()[0] + 1 if query.cursor is None else int(query.cursor)
    low = max(top - WINDOW, 0)
    how = {
        "top": top, "low": low, "kind": query.kind, "queue": query.queue, "since": query.since,
        "until": query.until, "states": listed_words(query.states),
    }  # fmt: skip
    jobs: list[JobRecord] = []
    last = low
    for row in tx.run(_LISTED, how):
        record = rows.fetched(row[:-1], row[-1], None).record
        if not query.accepts(record, micros(record.dispatched_at)):
            continue
        if len(jobs) == query.limit:
            return Page(jobs=jobs, cursor=str(last))
        jobs.append(record)
        last = row[-2]
    return Page(jobs=jobs, cursor=str(low) if low else None)


def listed_words(states: frozenset[JobState]) -> str | None:
    """States as the JSON that ``json_each`` reads; ``None`` for all."""
    return None if not states else "[" + ", ".join(f'"{state}"' for state in sorted(states)) + "]"
