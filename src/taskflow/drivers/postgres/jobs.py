"""What workers and producers do, as calls of the functions in the database."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from taskflow._core.records import (
    MICRO,
    Accepted,
    Change,
    Claim,
    Claimed,
    Enqueued,
    Extended,
    JobSpec,
    Leased,
    Renewal,
    Settled,
    Timing,
    Verdict,
)
from taskflow._core.states import SETTLES, JobState, after
from taskflow.drivers.postgres.names import CHANGE, DRAFT, WAY
from taskflow.drivers.postgres.rows import (
    ITEM,
    PART,
    changed,
    drafts,
    leased,
    pack,
    plain,
    safe,
)
from taskflow.errors import StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskflow.drivers.postgres.store import Store

__all__ = (
    "ENQUEUE_ON", "answers", "claim", "enqueue", "expire", "extend", "is_plain", "settle", "work",
)  # fmt: skip

PATIENCE: Final = ("100ms", "200ms", "400ms")
"""How long each try of an enqueue waits for an id or a unique key that somebody else is storing."""
_CHANGES: Final = len(CHANGE) + len(WAY)
"""Arrays of a settle."""


def _call(function: str, count: int) -> str:
    arguments = ", ".join(f"${number}" for number in range(1, count + 1))
    return f"SELECT * FROM {{f_{function}}}({arguments})"  # noqa: S608 - placeholders only


_APPLIED: Final = {
    event: Settled(Verdict.APPLIED, after(JobState.RUNNING, event, by_holder=True))
    for event in SETTLES
}
ENQUEUE: Final = _call("enqueue", len(DRAFT) + 3)
ENQUEUE_ON: Final = _call("enqueue_on", len(DRAFT) + 4)
CLAIM: Final = _call("claim", 9)
EXTEND: Final = _call("extend", 6)
EXPIRE: Final = _call("expire", 2)
SETTLE: Final = _call("settle", _CHANGES + 1)
FOLLOW: Final = _call("settle_and_follow", _CHANGES + 2 + len(DRAFT))


async def enqueue(store: Store, specs: Sequence[JobSpec]) -> list[Enqueued]:
    """Store jobs in one step; see ``Driver.enqueue``."""
    verdicts, holders, news = await _stored(store, specs)
    store.announce({*news.split(ITEM), *work(specs)})
    return answers(specs, verdicts, holders)


async def _stored(store: Store, specs: Sequence[JobSpec]) -> Any:
    """A lock that is not to be had soon is a caller's own transaction's, and may last."""
    columns = drafts(specs)
    for patience in PATIENCE:
        try:
            return await store.row(ENQUEUE, *columns, is_plain(specs), store.shift(), patience)
        except StoreBusyError:
            if patience == PATIENCE[-1]:
                raise
            await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311 - jitter
    raise AssertionError


def is_plain(specs: Sequence[JobSpec]) -> bool:
    """Nothing but known ids can keep one of them from being stored."""
    return len({spec.id for spec in specs}) == len(specs) and not any(
        spec.unique is not None or spec.after for spec in specs
    )


def work(specs: Sequence[JobSpec]) -> set[str]:
    """The news that these jobs are, once they are stored."""
    return {f"w{PART}{spec.lane}{PART}{safe(spec.queue)}" for spec in specs if not spec.after}


def answers(
    specs: Sequence[JobSpec], verdicts: Sequence[str] | None, holders: Sequence[str] | None
) -> list[Enqueued]:
    """What the database says of each; without verdicts, every one was accepted."""
    if verdicts is None or holders is None:
        return [Enqueued(Accepted.ACCEPTED, spec.id) for spec in specs]
    return [
        Enqueued(Accepted(verdict), plain(holder))
        for verdict, holder in zip(verdicts, holders, strict=True)
    ]


async def claim(store: Store, request: Claim) -> Claimed:
    """Lease the most urgent jobs; see ``Driver.claim``."""
    rooms = request.rooms
    *found, last = await store.rows(
        CLAIM, [safe(queue) for queue in dict.fromkeys(request.queues)], request.others,
        [lane.value for lane in rooms], [room.free for room in rooms.values()],
        [room.ahead for room in rooms.values()], Timing(request.lease).expires(0),
        safe(request.request_id), safe(request.worker_id), store.shift(),
    )  # fmt: skip
    store.announce(last[1].split(ITEM))
    now, due = last[10], last[11]
    return Claimed(
        jobs=_in_order(found, request), now=now,
        next_due_in=None if due is None else max(due - now, 0) / MICRO,
    )  # fmt: skip


def _in_order(found: list[Any], request: Claim) -> list[Leased]:
    """An UPDATE hands out rows in no order."""
    place: dict[str, int] = {}
    for queue in request.queues:
        place.setdefault(safe(queue), len(place))

    def urgency(row: Any) -> tuple[int, str, int, int, int]:
        queue, priority, seq, due = row[1], row[2], row[3], row[11]
        named = place.get(queue)
        first = len(place) if named is None else named
        return first, queue if named is None else "", -priority, due, seq

    if len(found) > 1:
        found.sort(key=urgency)
    return [leased(row, request.request_id) for row in found]


async def extend(store: Store, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
    """Renew leases; see ``Driver.extend``."""
    tokens = dict.fromkeys(renewal.token for renewal in renewals)
    progress = {one.token: one.progress for one in renewals if one.progress is not None}
    found = await store.rows(
        EXTEND, [safe(token.id) for token in tokens], [token.delivery for token in tokens],
        [safe(token.request_id) for token in tokens],
        [pack(progress.get(token)) for token in tokens], Timing(lease).expires(0), store.shift(),
    )  # fmt: skip
    asked = dict(found)
    replies = {
        token: Extended.LOST if (is_asked := asked.get(number)) is None
        else Extended.CANCEL if is_asked else Extended.RENEWED
        for number, token in enumerate(tokens, start=1)
    }  # fmt: skip
    return [replies[renewal.token] for renewal in renewals]


async def expire(store: Store, limit: int) -> list[str]:
    """End dead leases; see ``Driver.expire``."""
    ids, news = await store.row(EXPIRE, limit, store.shift())
    store.announce(news.split(ITEM))
    return [plain(job_id) for job_id in ids]


async def settle(store: Store, changes: Sequence[Change]) -> list[Settled]:
    """End attempts; see ``Driver.settle``."""
    replies: list[Settled] = []
    for run in _runs(changes):
        replies += await _settle_run(store, run)
    return replies


def _runs(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Changes that may be applied together: each of another job, and what the follow-ups of one
    meet is not what a later change leaves behind.
    """
    run: list[Change] = []
    ids: set[str] = set()
    for change in changes:
        if change.token.id in ids:
            yield run
            run, ids = [], set()
        run.append(change)
        ids.add(change.token.id)
        if any(spec.unique is not None or spec.after for spec in change.follow_ups):
            yield run
            run, ids = [], set()
    if run:
        yield run


async def _settle_run(store: Store, run: list[Change]) -> list[Settled]:
    columns, follow_ups = changed(run), [spec for change in run for spec in change.follow_ups]
    if follow_ups:
        owners = [n for n, change in enumerate(run, start=1) for _ in change.follow_ups]
        reply = await store.row(FOLLOW, *columns, store.shift(), owners, *drafts(follow_ups))
    else:
        reply = await store.row(SETTLE, *columns, store.shift())
    verdicts, states, news = reply
    store.announce(news.split(ITEM))
    if verdicts is None:
        return [_APPLIED[change.event] for change in run]
    return [
        Settled(Verdict(verdict), None if state is None else JobState(state))
        for verdict, state in zip(verdicts, states, strict=True)
    ]
