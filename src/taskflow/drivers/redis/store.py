"""What the operations of one open driver share, and the operations; lives on one asyncio loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from redis.exceptions import ResponseError

from taskflow._core.queries import JobQuery, Page, QueueStats, Replayed
from taskflow._core.records import (
    MICRO,
    Accepted,
    Cancelled,
    Change,
    Claim,
    Claimed,
    Enqueued,
    Extended,
    Fetched,
    JobSpec,
    Renewal,
    Settled,
    Timing,
    Verdict,
    later,
)
from taskflow._core.states import JobState
from taskflow.drivers.redis.client import Client
from taskflow.drivers.redis.faults import translated
from taskflow.drivers.redis.rows import change_args, draft, encode, leased, record
from taskflow.drivers.redis.server import pack
from taskflow.drivers.redis.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskflow.drivers.redis.server import Server

__all__ = ("Store",)

SCAN: Final = 500
"""Jobs that one call looks at for a list."""
ROUNDS: Final = 10
"""Calls that one page may take; then it is short, or empty, and leads on."""

_words: Final = msgspec.msgpack.Decoder(list[str])
_purged: Final = msgspec.msgpack.Decoder(tuple[int, int, bool])
_stats: Final = msgspec.msgpack.Decoder(
    tuple[list[str], list[str], list[tuple[str, float]], list[tuple[str, int]]]
)


class Store:
    """The operations on one namespace.

    Args:
        server: Where it is.
        tag: The key that names the namespace.
        shift: Microseconds by which the server's time is shifted.
        most: Connections at one time.
        deadline: Seconds for a call.
    """

    def __init__(
        self, server: Server, *, tag: str, shift: Callable[[], int], most: int, deadline: float
    ) -> None:
        self._client = Client(server, tag=tag, shift=shift, most=most, deadline=deadline)
        self.waits = Waits(self._client, server, tag)

    def close(self) -> None:
        """Close every connection."""
        self.waits.close()
        self._client.close()

    async def info(self) -> dict[str, str]:
        """What the server says of itself."""
        try:
            reply = await self._client.send(pack("INFO"))
        except ResponseError as exc:
            raise translated(exc) from exc
        text = reply if isinstance(reply, bytes) else bytes(reply)
        lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
        return {name: value for name, colon, value in lines if colon}

    async def refusals(self) -> tuple[str, str]:
        """What this user may not do with our keys, and with our messages; empty where it may."""
        keys, messages = await self._client.run("probe", ())
        return keys.decode(), messages.decode()

    # ---- jobs

    async def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """See ``Driver.enqueue``."""
        blobs = [blob for spec in jobs for blob in draft(spec)]
        words = iter(_words.decode(await self._client.run("enqueue", (len(jobs),), blobs)))
        return [
            Enqueued(Accepted(verdict), job_id)
            for verdict, job_id in zip(words, words, strict=True)
        ]

    async def claim(self, request: Claim) -> Claimed:
        """See ``Driver.claim``."""
        rooms = [(lane.value, room.free, room.ahead) for lane, room in request.rooms.items()]
        reply = iter(await self._client.run("claim", (
            request.queues, request.others, rooms, Timing(request.lease).expires(0),
            request.request_id, request.worker_id,
        )))  # fmt: skip
        now, due = int(next(reply)), next(reply)
        return Claimed(
            jobs=[leased(row, spec) for row, spec in zip(reply, reply, strict=True)], now=now,
            next_due_in=max(float(due) - now, 0.0) / MICRO if due else None,
        )  # fmt: skip

    async def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """See ``Driver.extend``."""
        tokens = [renewal.token for renewal in renewals]
        blobs, notes = [], []
        for renewal in renewals:
            if renewal.progress is not None:
                blobs.append(encode(renewal.progress))
            notes.append(0 if renewal.progress is None else len(blobs))
        args = (
            Timing(lease).expires(0), [token.id for token in tokens],
            [token.delivery for token in tokens], [token.request_id for token in tokens], notes,
        )  # fmt: skip
        return [Extended(word) for word in await self._said("extend", args, blobs)]

    async def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """See ``Driver.settle``."""
        args, blobs = change_args(changes)
        words = iter(await self._said("settle", args, blobs))
        return [
            Settled(Verdict(verdict), JobState(state) if state else None)
            for verdict, state in zip(words, words, strict=True)
        ]

    async def expire(self, limit: int) -> list[str]:
        """See ``Driver.expire``."""
        return await self._said("expire", (limit,))

    async def _said(self, name: str, args: object, blobs: Sequence[bytes] = ()) -> list[str]:
        return _words.decode(await self._client.run(name, args, blobs))

    # ---- what people ask

    async def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """See ``Driver.cancel``."""
        return [Cancelled(word) for word in await self._said("cancel", tuple(ids))]

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """See ``Driver.replay``."""
        return [Replayed(word) for word in await self._said("replay", tuple(ids))]

    async def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """See ``Driver.fetch``."""
        columns = await self._client.run("fetch", tuple(ids))
        return [
            None if row is None else record(row, *rest)[0]
            for row, *rest in zip(*columns, strict=True)
        ]

    async def purge(self, queue: str) -> int:
        """See ``Driver.purge``; deletes in steps, and only what was there when it began."""
        total, last, is_more = 0, 0, True
        while is_more:
            reply = await self._client.run("purge", (queue, last))
            count, last, is_more = _purged.decode(reply)
            total += count
        return total

    async def pause(self, queues: Sequence[str], is_pause: bool) -> None:
        """See ``Driver.pause`` and ``Driver.resume``."""
        await self._client.run("pause", (is_pause, tuple(queues)))

    async def prune(self, limit: int, keep: float) -> int:
        """See ``Driver.prune``."""
        return int(await self._client.run("prune", (limit, later(0, keep))))

    async def list_jobs(self, query: JobQuery) -> Page:
        """See ``Driver.list_jobs``."""
        before = int(query.cursor) if query.cursor is not None else None
        page = Page(jobs=[])
        for _ in range(ROUNDS):
            page, before = await self._more(query, page, before)
            if before is None or len(page.jobs) == query.limit:
                break
        return msgspec.structs.replace(page, cursor=None if before is None else str(before))

    async def _more(
        self, query: JobQuery, page: Page, before: int | None
    ) -> tuple[Page, int | None]:
        """Some more jobs for a page, and where it goes on."""
        states = {state.value: True for state in query.states} if query.states else False
        args = (
            False if before is None else before, SCAN, query.limit - len(page.jobs), states,
            False if query.queue is None else query.queue, query.since or 0, query.until or 0,
        )  # fmt: skip
        cursor, *found = await self._client.run("list", args)
        jobs = list(page.jobs)
        for row, spec, error, progress in zip(*(iter(found),) * 4, strict=True):
            fetched, dispatched = record(row, spec, None, error, progress)
            if query.accepts(fetched.record, dispatched):
                jobs.append(fetched.record)
        return Page(jobs=jobs), int(cursor) if cursor else None

    async def stats(self) -> list[QueueStats]:
        """See ``Driver.stats``."""
        flat, paused, ages, ended = _stats.decode(await self._client.run("stats", ()))
        counts: dict[str, dict[JobState, int]] = {queue: {} for queue in paused}
        words = iter(flat)
        for field, jobs in zip(words, words, strict=True):
            queue, _, state = field.rpartition("\0")
            counts.setdefault(queue, {})[JobState(state)] = int(jobs)
        finished: dict[str, int] = {}
        for queue, count in ended:
            finished[queue] = finished.get(queue, 0) + count
        oldest: dict[str, float] = {}
        for queue, age in ages:
            oldest[queue] = max(age / MICRO, oldest.get(queue, 0.0))
        return [
            QueueStats(
                queue=queue, counts=counts[queue], paused=queue in paused,
                oldest=oldest.get(queue), finished=finished.get(queue, 0),
            )
            for queue in sorted(counts)
        ]  # fmt: skip
