"""The state behind memory drivers, and its atomic steps.

Every method runs under one lock, so each is one step. Heaps are cleaned lazily: an entry counts
only while its row still says the same.
"""

from __future__ import annotations

from heapq import heappop, heappush
from threading import Lock
from typing import TYPE_CHECKING, Final

from taskflow._core.records import (
    MICRO,
    Accepted,
    Cancelled,
    Change,
    Claim,
    Claimed,
    Conflict,
    Enqueued,
    Extended,
    Fetched,
    JobSpec,
    Lane,
    Renewal,
    Settled,
    Timing,
    Verdict,
    Wait,
    Wake,
    encode_spec,
)
from taskflow._core.states import FINAL, Event, JobState, after, sources_of
from taskflow.drivers.memory.rows import Row
from taskflow.drivers.memory.waiting import News, Waiters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskflow.abc import Clock

__all__ = ("MemoryStore",)

STAGED: Final = sources_of(Event.STAGE)
LAPSING: Final = sources_of(Event.LAPSE)

_Heap = list[tuple[int, int, Row]]


class MemoryStore:
    """Jobs of one ``memory://`` store. Shared by a driver and its twins.

    Attributes:
        waiters: Who is told when something happens.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._seq = 0
        self._rows: dict[str, Row] = {}
        self._ready: dict[str, dict[Lane, list[tuple[tuple[int, int, int], Row]]]] = {}
        self._later: _Heap = []
        self._leases: _Heap = []
        self._expiries: _Heap = []
        self._requests: dict[str, list[Row]] = {}
        self._keys: dict[str, Row] = {}
        self._news = News()
        self.waiters = Waiters()

    # ---- the operations

    def enqueue(self, jobs: Sequence[JobSpec]) -> list[Enqueued]:
        """Store jobs, in order."""
        with self._lock:
            now = self._clock.now()
            replies = [self._accept(spec, now) for spec in jobs]
            self._tell()
        return replies

    def claim(self, request: Claim) -> Claimed:
        """Stage, expire, then take the most urgent."""
        with self._lock:
            now, uptime = self._clock.now(), self._clock.uptime()
            held = self._held_under(request.request_id)
            if held:
                return Claimed(jobs=[row.leased() for row in held])
            self._stage(now)
            self._expire(uptime, limit=1000)
            self._lapse(now)
            rows = self._pick(request)
            lease_until = Timing(request.lease).expires(uptime)
            for row in rows:
                self._lease(row, request, lease_until, now)
            if rows:
                self._requests[request.request_id] = rows
            self._tell()
            return Claimed(
                jobs=[row.leased() for row in rows], next_due_in=self._next_due_in(request, now)
            )

    def extend(self, renewals: Sequence[Renewal], lease: float) -> list[Extended]:
        """Renew what is still held."""
        with self._lock:
            until = Timing(lease).expires(self._clock.uptime())
            return [self._renew(renewal, until) for renewal in renewals]

    def settle(self, changes: Sequence[Change]) -> list[Settled]:
        """End attempts."""
        with self._lock:
            now = self._clock.now()
            replies = [self._settle(change, now) for change in changes]
            self._tell()
        return replies

    def expire(self, limit: int) -> list[str]:
        """End dead leases."""
        with self._lock:
            now = self._clock.now()
            expired = self._expire(self._clock.uptime(), limit)
            self._stage(now)
            self._lapse(now)
            self._tell()
        return expired

    def cancel(self, ids: Sequence[str]) -> list[Cancelled]:
        """Cancel, or ask."""
        with self._lock:
            now = self._clock.now()
            replies = [self._cancel(job_id, now) for job_id in ids]
            self._tell()
        return replies

    def fetch(self, ids: Sequence[str]) -> list[Fetched | None]:
        """Read."""
        with self._lock:
            return [
                Fetched(record=row.record(), result=row.result)
                if (row := self._rows.get(job_id)) is not None
                else None
                for job_id in ids
            ]

    def glance(self, request: Wait) -> Wake:
        """What a wait is about, as it is now."""
        with self._lock:
            now = self._clock.now()
            self._stage(now)
            self._news = News()
            finals = frozenset(
                job_id for job_id in request.ids
                if (row := self._rows.get(job_id)) is None or row.state in FINAL
            )  # fmt: skip
            return Wake(
                work=any(
                    self._top(queue, lane) is not None
                    for queue in self._served(request.queues, request.others)
                    for lane in request.lanes
                ),
                finals=finals, cancels=self._has_cancels(request),
            )  # fmt: skip

    # ---- enqueue

    def _accept(self, spec: JobSpec, now: int) -> Enqueued:
        known = self._rows.get(spec.id)
        if known is not None:
            same = known.spec == spec or encode_spec(known.spec) == encode_spec(spec)
            return Enqueued(Accepted.DUPLICATE if same else Accepted.CONFLICT, spec.id)
        refusal = self._refusal(spec, now)
        if refusal is not None:
            return refusal
        due = now + round(spec.delay * MICRO) if spec.eta is None else spec.eta
        self._seq += 1
        state = after(None, Event.ENQUEUE, due_later=due > now)
        row = Row(spec, self._seq, now, due, state)
        self._rows[spec.id] = row
        if spec.expires_in is not None:
            row.expires_at = now + round(spec.expires_in * MICRO)
            heappush(self._expiries, (row.expires_at, row.seq, row))
        if spec.unique is not None and state in spec.unique.states:
            self._keys[spec.unique.key] = row
        self._place(row)
        return Enqueued(Accepted.ACCEPTED, spec.id)

    def _refusal(self, spec: JobSpec, now: int) -> Enqueued | None:
        """The reply when another job holds the unique key and keeps it."""
        unique = spec.unique
        holder = None if unique is None else self._holder(unique.key)
        if unique is None or holder is None or holder.state not in unique.states:
            return None
        if unique.on_conflict is Conflict.KEEP:
            return Enqueued(Accepted.HELD, holder.spec.id)
        if unique.on_conflict is Conflict.RAISE or holder.state is JobState.RUNNING:
            return Enqueued(Accepted.CONFLICT, holder.spec.id)
        holder.state = after(holder.state, Event.CANCEL)
        self._end(holder, now, "replaced")
        return None

    def _holder(self, key: str) -> Row | None:
        """The live job that holds a key: in one of the states that it named itself."""
        row = self._keys.get(key)
        if row is None or row.spec.unique is None or row.state not in row.spec.unique.states:
            return None
        return row

    # ---- claim

    def _held_under(self, request_id: str) -> list[Row]:
        return [
            row for row in self._requests.get(request_id, ())
            if row.state is JobState.RUNNING and row.request_id == request_id
        ]  # fmt: skip

    def _lease(self, row: Row, request: Claim, lease_until: int, now: int) -> None:
        row.state = after(row.state, Event.CLAIM)
        row.attempt += 1
        row.delivery += 1
        row.request_id = request.request_id
        row.worker_id = request.worker_id
        row.lease_until = lease_until
        row.started_at = now
        heappush(self._leases, (lease_until, row.seq, row))

    def _pick(self, request: Claim) -> list[Row]:
        free = {lane: room.free for lane, room in request.rooms.items()}
        ahead = {lane: room.ahead for lane, room in request.rooms.items()}
        rows: list[Row] = []
        for queue in self._served(request.queues, request.others):
            found: list[Row] = []
            for lane in free:
                if free[lane] or ahead[lane]:
                    found += self._take(queue, lane, free, ahead)
            if len(free) > 1:
                found.sort(key=lambda row: row.order)
            rows += found
        return rows

    def _take(
        self, queue: str, lane: Lane, free: dict[Lane, int], ahead: dict[Lane, int]
    ) -> list[Row]:
        taken: list[Row] = []
        passed: list[Row] = []
        while free[lane] or ahead[lane]:
            row = self._top(queue, lane)
            if row is None:
                break
            heappop(self._ready[queue][lane])
            if free[lane]:
                free[lane] -= 1
                taken.append(row)
            elif row.attempt + 1 < row.spec.max_attempts and not row.crashes:
                ahead[lane] -= 1
                taken.append(row)
            else:
                passed.append(row)
        for row in passed:
            heappush(self._ready[queue][lane], (row.order, row))
        return taken

    def _top(self, queue: str, lane: Lane) -> Row | None:
        """The most urgent available job, left where it is."""
        heap = self._ready.get(queue, {}).get(lane)
        while heap:
            order, row = heap[0]
            if row.state is JobState.AVAILABLE and row.order == order:
                return row
            heappop(heap)
        return None

    def _served(self, queues: Sequence[str], others: bool) -> Iterator[str]:
        yield from queues
        if others:
            yield from sorted(self._ready.keys() - set(queues))

    def _next_due_in(self, request: Claim, now: int) -> float | None:
        served = None if request.others else set(request.queues)
        while self._later and not self._is_later(self._later[0]):
            heappop(self._later)
        if served is None:
            first = self._later[0][0] if self._later else None
        else:
            dues = [e[0] for e in self._later if self._is_later(e) and e[2].spec.queue in served]
            first = min(dues, default=None)
        return None if first is None else max(first - now, 0) / MICRO

    # ---- time

    @staticmethod
    def _is_later(entry: tuple[int, int, Row]) -> bool:
        due, _, row = entry
        return row.state in STAGED and row.due == due

    def _stage(self, now: int) -> None:
        while self._later and self._later[0][0] <= now:
            entry = heappop(self._later)
            if self._is_later(entry):
                row = entry[2]
                row.state = after(row.state, Event.STAGE)
                self._place(row)

    def _expire(self, uptime: int, limit: int) -> list[str]:
        expired: list[str] = []
        while self._leases and self._leases[0][0] <= uptime and len(expired) < limit:
            until, seq, row = heappop(self._leases)
            if row.state is not JobState.RUNNING or row.lease_until < until:
                continue
            if row.lease_until > until:
                heappush(self._leases, (row.lease_until, seq, row))
                continue
            row.state = after(row.state, Event.EXPIRE)
            row.crashes += 1
            self._leave(row)
            self._place(row)
            expired.append(row.spec.id)
        return expired

    def _lapse(self, now: int) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            row = heappop(self._expiries)[2]
            if row.state in LAPSING:
                row.state = after(row.state, Event.LAPSE)
                self._end(row, now, "expired")
            elif row.state is JobState.RUNNING:
                self._news.overdue.append(row)
        for row in self._news.overdue:
            assert row.expires_at is not None
            heappush(self._expiries, (max(row.expires_at, now + MICRO), row.seq, row))
        self._news.overdue.clear()

    # ---- extend and settle

    def _renew(self, renewal: Renewal, until: int) -> Extended:
        row = self._rows.get(renewal.token.id)
        if row is None or not row.is_held_by(renewal.token):
            return Extended.LOST
        row.lease_until = max(row.lease_until, until)
        if renewal.progress is not None:
            row.progress = renewal.progress
        return Extended.CANCEL if row.cancel_requested else Extended.RENEWED

    def _settle(self, change: Change, now: int) -> Settled:
        token, event = change.token, change.event
        row = self._rows.get(token.id)
        if row is None or not row.is_held_by(token):
            if row is not None and row.fin == (token.delivery, token.request_id, event):
                return Settled(Verdict.ALREADY, row.fin_state)
            return Settled(Verdict.LOST)
        state = after(row.state, event, cancel_requested=row.cancel_requested, by_holder=True)
        row.state = row.fin_state = state
        row.fin = (token.delivery, token.request_id, event)
        self._count(row, change)
        self._leave(row)
        if state in FINAL:
            reason = "cancelled" if state is JobState.CANCELLED else change.reason
            self._end(row, now, reason, change.result)
        else:
            row.reason = change.reason
            if state in STAGED:
                row.due = now + round(change.delay * MICRO)
            self._place(row)
        for spec in change.follow_ups:
            self._accept(spec, now)
        return Settled(Verdict.APPLIED, state)

    @staticmethod
    def _count(row: Row, change: Change) -> None:
        if change.refund:
            row.attempt -= 1
        if change.event is Event.RELEASE and change.started:
            row.interruptions += 1
        elif change.event is Event.PARK:
            row.parks += 1
        if change.error is not None:
            row.error = change.error

    def _leave(self, row: Row) -> None:
        """No longer leased."""
        held = self._requests.get(row.request_id)
        if held is not None:
            held.remove(row)
            if not held:
                del self._requests[row.request_id]

    # ---- cancel and ends

    def _cancel(self, job_id: str, now: int) -> Cancelled:
        row = self._rows.get(job_id)
        if row is None:
            return Cancelled.UNKNOWN
        if row.state in FINAL:
            return Cancelled.FINAL
        row.state = after(row.state, Event.CANCEL)
        if row.state is JobState.RUNNING:
            row.cancel_requested = True
            if row.worker_id is not None:
                self._news.workers.add(row.worker_id)
            return Cancelled.REQUESTED
        self._end(row, now, "cancelled")
        return Cancelled.CANCELLED

    def _end(self, row: Row, now: int, reason: str, result: bytes | None = None) -> None:
        row.reason = reason
        row.finished_at = now
        row.result = None if row.spec.result_ttl == 0 else result
        unique = row.spec.unique
        if unique is not None and self._keys.get(unique.key) is row:
            del self._keys[unique.key]
        self._news.finals.append(row.spec.id)

    def _place(self, row: Row) -> None:
        """Put a job that waits where a claim or the stage will find it."""
        if row.state is JobState.AVAILABLE:
            lanes = self._ready.setdefault(row.spec.queue, {})
            heappush(lanes.setdefault(row.spec.lane, []), (row.order, row))
            self._news.work.add((row.spec.queue, row.spec.lane))
        else:
            heappush(self._later, (row.due, row.seq, row))
            self._news.work.add((row.spec.queue, row.spec.lane))

    def _has_cancels(self, request: Wait) -> bool:
        if request.worker_id is None:
            return False
        return any(
            row.cancel_requested and row.worker_id == request.worker_id
            and row.state is JobState.RUNNING and row.spec.id not in request.cancelling
            for rows in self._requests.values() for row in rows
        )  # fmt: skip

    def _tell(self) -> None:
        news, self._news = self._news, News()
        self.waiters.tell(news)
