"""What people ask: reading, cancelling, replaying, purging, pausing, counting, forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
from taskflow._core.records import MICRO, Cancelled, Fetched, Lane, later
from taskflow._core.states import Event, JobState, sources_of
from taskflow.drivers.postgres.rows import ITEM, PART, plain, record, safe, tag_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskflow.drivers.postgres.store import Store

__all__ = (
    "cancel",
    "fetch",
    "list_jobs",
    "pause",
    "prune",
    "purge",
    "replay",
    "resume",
    "stats",
)

CHUNK: Final = 5000
"""Jobs that one step of a purge deletes."""
WINDOW: Final = 20_000
"""Jobs that one page looks at, at most."""
LATELY: Final = 60 * MICRO

_FETCH: Final = "SELECT * FROM {f_fetch}($1)"
_REACH: Final = (
    "SELECT min(seq), count(*) FROM"
    " (SELECT seq FROM {all_jobs} WHERE seq < $1 ORDER BY seq DESC LIMIT $2) AS reach"
)
_LIST: Final = (
    "SELECT {record} FROM {all_jobs} AS j WHERE seq < $1 AND seq >= $2"
    " AND ($3::text[] IS NULL OR state = ANY ($3)) AND ($4::text IS NULL OR kind = $4)"
    " AND ($5::text IS NULL OR queue = $5) AND ($6::bigint IS NULL OR enqueued_at >= $6)"
    " AND ($7::bigint IS NULL OR enqueued_at < $7)"
    " AND NOT EXISTS (SELECT FROM unnest($8::text[]) AS t WHERE strpos(coalesce(tags, ''), t) = 0)"
    " ORDER BY seq DESC LIMIT $9"
)
_STATS: Final = (
    "SELECT queue, CASE WHEN state = ANY ($2) AND due <= t.now THEN $3 ELSE state END AS shown,"
    " count(*), min(due), count(*) FILTER (WHERE state = ANY ($4) AND finished_at > t.now - $5),"
    " t.now FROM {all_jobs}, (SELECT {f_now}($1) AS now OFFSET 0) AS t GROUP BY 1, 2, t.now"
)
_PAUSED: Final = "SELECT queue FROM {paused}"
_PAUSE: Final = (
    "INSERT INTO {paused} (queue) SELECT DISTINCT unnest($1::text[]) ORDER BY 1"
    " ON CONFLICT DO NOTHING"
)
_RESUME: Final = "DELETE FROM {paused} WHERE queue = ANY ($1) RETURNING queue"
_STAGED: Final = sorted(sources_of(Event.STAGE))
_ENDED: Final = [JobState.COMPLETED.value, JobState.FAILED.value]


async def fetch(store: Store, ids: Sequence[str]) -> list[Fetched | None]:
    """See ``Driver.fetch``."""
    rows = await store.rows(_FETCH, [safe(job_id) for job_id in dict.fromkeys(ids)])
    found = {plain(row[-1]): record(row, row[-2]) for row in rows}
    return [found.get(job_id) for job_id in ids]


async def cancel(store: Store, ids: Sequence[str]) -> list[Cancelled]:
    """See ``Driver.cancel``."""
    verdicts, news = await store.row(
        "SELECT * FROM {f_cancel}($1, $2)", [safe(job_id) for job_id in ids], store.shift()
    )
    store.announce(news.split(ITEM))
    return [Cancelled(verdict) for verdict in verdicts or ()]


async def replay(store: Store, ids: Sequence[str]) -> list[Replayed]:
    """See ``Driver.replay``."""
    verdicts, news = await store.row(
        "SELECT * FROM {f_replay}($1, $2)", [safe(job_id) for job_id in ids], store.shift()
    )
    store.announce(news.split(ITEM))
    return [Replayed(verdict) for verdict in verdicts or ()]


async def purge(store: Store, queue: str) -> int:
    """See ``Driver.purge``; in steps, and only what was there when it began."""
    total, before = 0, None
    while True:
        count, before, news = await store.row(
            "SELECT * FROM {f_purge}($1, $2, $3, $4)", safe(queue), before, CHUNK, store.shift()
        )
        store.announce(news.split(ITEM))
        total += count
        if count < CHUNK:
            return int(total)


async def pause(store: Store, queues: Sequence[str]) -> None:
    """See ``Driver.pause``."""
    await store.rows(_PAUSE, [safe(queue) for queue in queues])


async def resume(store: Store, queues: Sequence[str]) -> None:
    """See ``Driver.resume``."""
    rows = await store.rows(_RESUME, [safe(queue) for queue in queues])
    store.announce(f"w{PART}{lane}{PART}{row[0]}" for row in rows for lane in Lane)


async def prune(store: Store, limit: int, keep: float) -> int:
    """See ``Driver.prune``."""
    (count,) = await store.row("SELECT {f_prune}($1, $2, $3)", limit, later(0, keep), store.shift())
    return int(count)


async def list_jobs(store: Store, query: JobQuery) -> Page:
    """See ``Driver.list_jobs``."""
    before = 2**62 if query.cursor is None else int(query.cursor)
    reach, count = await store.row(_REACH, before, WINDOW)
    rows = await store.rows(
        _LIST, before, reach or 0, [state.value for state in query.states] or None,
        None if query.kind is None else safe(query.kind),
        None if query.queue is None else safe(query.queue), query.since, query.until,
        [tag_text([tag]) for tag in query.tags.items()], query.limit + 1,
    )  # fmt: skip
    jobs = [record(row).record for row in rows[: query.limit]]
    if len(rows) > query.limit:
        return Page(jobs=jobs, cursor=str(rows[query.limit - 1][0]))
    return Page(jobs=jobs, cursor=str(reach) if count == WINDOW else None)


async def stats(store: Store) -> list[QueueStats]:
    """See ``Driver.stats``."""
    paused = {plain(row[0]) for row in await store.rows(_PAUSED)}
    rows = await store.rows(
        _STATS, store.shift(), _STAGED, JobState.AVAILABLE.value, _ENDED, LATELY
    )
    queues: dict[str, list[Any]] = {queue: [] for queue in paused}
    for queue, *rest in rows:
        queues.setdefault(plain(queue), []).append(rest)
    return [_counted(queue, queues[queue], queue in paused) for queue in sorted(queues)]


def _counted(queue: str, rows: list[Any], is_paused: bool) -> QueueStats:
    oldest = next(
        ((now - due) / MICRO for state, _, due, _, now in rows if state == JobState.AVAILABLE),
        None,
    )
    return QueueStats(
        queue=queue, counts={JobState(state): count for state, count, *_ in rows},
        paused=is_paused, oldest=oldest, finished=sum(row[3] for row in rows),
    )  # fmt: skip
