"""What a driver must do, as plain as it can be said: the reference that programs compare with.

Pure and slow: dictionaries and sorting, no index, no heap, one clock handed in with each call. It
is written apart from every driver, the memory driver included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from taskflow._core.flows import SKIPPED, fires
from taskflow._core.queries import Replayed
from taskflow._core.records import (
    MICRO,
    Accepted,
    Cancelled,
    Change,
    Claim,
    Conflict,
    Enqueued,
    ErrorInfo,
    Extended,
    JobSpec,
    Lane,
    Progress,
    Renewal,
    Settled,
    Timing,
    Token,
    Verdict,
    later,
)
from taskflow._core.states import FINAL, Event, JobState, after, sources_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("Model", "ModelJob")

STAGED: Final = sources_of(Event.STAGE)


@dataclass
class ModelJob:
    """One job as it must be. Instants in microseconds."""

    spec: JobSpec
    seq: int
    enqueued_at: int
    due: int
    state: JobState
    expires_at: int | None = None
    attempt: int = 0
    crashes: int = 0
    interruptions: int = 0
    parks: int = 0
    delivery: int = 0
    request_id: str = ""
    worker_id: str | None = None
    lease_until: int = 0
    cancel_requested: bool = False
    fin: tuple[int, str, Event, JobState] | None = None
    reason: str = ""
    result: bytes | None = None
    error: ErrorInfo | None = None
    progress: Progress | None = None
    started_at: int | None = None
    finished_at: int | None = None
    fired: dict[str, bool | None] = field(default_factory=dict)
    """What has become of its edges, by predecessor."""

    @property
    def token(self) -> Token:
        """The fence of its latest lease."""
        return Token(self.spec.id, self.delivery, self.request_id)

    def is_held_by(self, token: Token) -> bool:
        """The fence lets this token pass."""
        return self.state is JobState.RUNNING and token == self.token


class Model:
    """A store by the book.

    Attributes:
        jobs: Every job that is there.
        gone: Ids that were purged or pruned.
        is_behind: A cascade of flows is left to the next claim or expire; until then stores may
            differ in how far they are.
        jumped: Microseconds by which the wall clock stands before the clock of the leases.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.paused: set[str] = set()
        self.gone: set[str] = set()
        self.is_behind = False
        self.jumped = 0
        self._seq = 0

    # ---- enqueue

    def enqueue(self, specs: Sequence[JobSpec], now: int) -> list[Enqueued]:
        """Accept, in order."""
        return [self._accept(spec, now) for spec in specs]

    def _accept(self, spec: JobSpec, now: int) -> Enqueued:
        known = self.jobs.get(spec.id)
        if known is not None:
            verdict = Accepted.DUPLICATE if known.spec == spec else Accepted.CONFLICT
            return Enqueued(verdict, spec.id)
        if any(edge.id not in self.jobs for edge in spec.after):
            return Enqueued(Accepted.ORPHAN, spec.id)
        holders = self.holders(spec.unique.key) if spec.unique is not None else []
        if spec.unique is not None and holders:
            if spec.unique.on_conflict is Conflict.KEEP:
                return Enqueued(Accepted.HELD, holders[0].spec.id)
            runs = any(holder.state is JobState.RUNNING for holder in holders)
            if spec.unique.on_conflict is Conflict.RAISE or runs:
                return Enqueued(Accepted.CONFLICT, holders[0].spec.id)
            for holder in holders:
                self._end(holder, after(holder.state, Event.CANCEL), now, "replaced")
        self._add(spec, now)
        return Enqueued(Accepted.ACCEPTED, spec.id)

    def _add(self, spec: JobSpec, now: int) -> None:
        self._seq += 1
        due = _due(spec, now)
        fired = {edge.id: fires(edge.on, self.jobs[edge.id].state) for edge in spec.after}
        blocked = not all(fired.values())
        job = ModelJob(
            spec, self._seq, now, due,
            after(None, Event.ENQUEUE, due_later=due > now, blocked=blocked), fired=fired,
        )  # fmt: skip
        if spec.expires_in is not None:
            job.expires_at = later(now, spec.expires_in)
        self.jobs[spec.id] = job
        self._weigh(job, now)

    def holders(self, key: str) -> list[ModelJob]:
        """The live jobs that hold a unique key, the earliest first."""
        return [
            job for job in self.jobs.values()
            if job.spec.unique is not None and job.spec.unique.key == key
            and job.state not in FINAL and job.state in job.spec.unique.states
        ]  # fmt: skip

    # ---- claim

    def claim(self, request: Claim, now: int) -> list[ModelJob]:
        """The jobs that a claim must hand out, in order."""
        held = self._held(request.request_id)
        until = Timing(request.lease).expires(now - self.jumped)
        if held:
            for job in held:
                job.lease_until = max(job.lease_until, until)
            return held
        self.catch_up(now)
        picked = self._pick(request)
        for job in picked:
            job.state = after(job.state, Event.CLAIM)
            job.attempt += 1
            job.delivery += 1
            job.request_id, job.worker_id = request.request_id, request.worker_id
            job.lease_until, job.started_at = until, now
        return picked

    def is_held(self, request_id: str) -> bool:
        """Jobs are held under this request: the same claim gets those again."""
        return bool(self._held(request_id))

    def _held(self, request_id: str) -> list[ModelJob]:
        return [
            job for job in self.jobs.values()
            if job.state is JobState.RUNNING and job.request_id == request_id
        ]  # fmt: skip

    def _pick(self, request: Claim) -> list[ModelJob]:
        free = {lane: room.free for lane, room in request.rooms.items()}
        ahead = {lane: room.ahead for lane, room in request.rooms.items()}
        ready = [
            job for job in self.jobs.values()
            if job.state is JobState.AVAILABLE and job.spec.queue not in self.paused
            and (request.others or job.spec.queue in request.queues)
        ]  # fmt: skip
        picked: list[ModelJob] = []
        for job in self._in_order(ready, request):
            lane = job.spec.lane
            may_wait = job.attempt + 1 < job.spec.max_attempts and not job.crashes
            if free.get(lane, 0) > 0:
                free[lane] -= 1
            elif ahead.get(lane, 0) > 0 and may_wait:
                ahead[lane] -= 1
            else:
                continue
            picked.append(job)
        return picked

    @staticmethod
    def _in_order(jobs: list[ModelJob], request: Claim) -> list[ModelJob]:
        place = {queue: index for index, queue in enumerate(request.queues)}

        def urgency(job: ModelJob) -> tuple[int, str, int, int, int]:
            spec = job.spec
            named = place.get(spec.queue)
            last = len(place) if named is None else named
            name = spec.queue if named is None else ""
            return last, name, -spec.priority, job.due, job.seq

        return sorted(jobs, key=urgency)

    # ---- leases

    def extend(self, renewals: Sequence[Renewal], lease: float, now: int) -> list[Extended]:
        """Renew."""
        return [
            self._renew(renewal, Timing(lease).expires(now - self.jumped)) for renewal in renewals
        ]

    def _renew(self, renewal: Renewal, until: int) -> Extended:
        job = self.jobs.get(renewal.token.id)
        if job is None or not job.is_held_by(renewal.token):
            return Extended.LOST
        job.lease_until = max(job.lease_until, until)
        if renewal.progress is not None:
            job.progress = renewal.progress
        return Extended.CANCEL if job.cancel_requested else Extended.RENEWED

    def settle(self, changes: Sequence[Change], now: int) -> list[Settled]:
        """End attempts."""
        return [self._settle(change, now) for change in changes]

    def _settle(self, change: Change, now: int) -> Settled:
        token, job = change.token, self.jobs.get(change.token.id)
        if job is None or not job.is_held_by(token):
            fin = None if job is None else job.fin
            if fin is not None and fin[:3] == (token.delivery, token.request_id, change.event):
                return Settled(Verdict.ALREADY, fin[3])
            return Settled(Verdict.LOST)
        asked = job.cancel_requested
        state = after(job.state, change.event, cancel_requested=asked, by_holder=True)
        job.fin = (token.delivery, token.request_id, change.event, state)
        job.attempt -= change.refund
        job.interruptions += change.event is Event.RELEASE and change.started
        job.parks += change.event is Event.PARK
        job.error = change.error or job.error
        if state in FINAL:
            reason = "cancelled" if state is JobState.CANCELLED else change.reason
            self._end(job, state, now, reason, change.result)
        else:
            job.state, job.reason = state, change.reason
            if state in STAGED:
                job.due = later(now, change.delay)
        for spec in change.follow_ups:
            self._accept(spec, now)
        return Settled(Verdict.APPLIED, state)

    # ---- time

    def catch_up(self, now: int) -> list[str]:
        """What claim and expire do for the whole store; returns the jobs of dead leases."""
        expired: list[str] = []
        for job in list(self.jobs.values()):
            if job.state is JobState.RUNNING and job.lease_until <= now - self.jumped:
                job.state = after(job.state, Event.EXPIRE)
                job.crashes += 1
                expired.append(job.spec.id)
            elif job.state in STAGED and job.due <= now:
                job.state = after(job.state, Event.STAGE)
        for job in list(self.jobs.values()):
            lapses = job.state in sources_of(Event.LAPSE)
            if lapses and job.expires_at is not None and job.expires_at <= now:
                self._end(job, after(job.state, Event.LAPSE), now, "expired")
        self.is_behind = False
        return expired

    # ---- ends and flows

    def _end(
        self, job: ModelJob, state: JobState, now: int, reason: str, result: bytes | None = None
    ) -> None:
        job.state, job.reason, job.finished_at = state, reason, now
        keeps = job.spec.result_ttl != 0 or bool(self.successors(job.spec.id))
        job.result = result if keeps else None
        self._tell(job.spec.id, now)

    def successors(self, job_id: str) -> list[ModelJob]:
        """The jobs with an edge from this one."""
        return [job for job in self.jobs.values() if job_id in job.fired]

    def _tell(self, job_id: str, now: int) -> None:
        """Bring the edges from a job in line with its state, and everything behind them."""
        job = self.jobs.get(job_id)
        for successor in self.successors(job_id):
            on = next(edge.on for edge in successor.spec.after if edge.id == job_id)
            successor.fired[job_id] = False if job is None else fires(on, job.state)
            before = successor.state in FINAL
            self._weigh(successor, now)
            if before != (successor.state in FINAL) and self.successors(successor.spec.id):
                self.is_behind = True  # cascades are worked off by the next claim or expire
                self._tell(successor.spec.id, now)

    def _weigh(self, job: ModelJob, now: int) -> None:
        hopeless = False in job.fired.values()
        if job.state is JobState.CANCELLED and job.reason == SKIPPED and not hopeless:
            if job.spec.unique is not None and self.holders(job.spec.unique.key):
                return
            job.state = after(job.state, Event.REJOIN)
            job.reason, job.finished_at = "", None
        if job.state is not JobState.WAITING:
            return
        if hopeless:
            job.state = after(job.state, Event.SKIP)
            job.reason, job.finished_at = SKIPPED, now
        elif all(job.fired.values()):
            job.due = _due(job.spec, now)
            job.state = after(job.state, Event.UNBLOCK, due_later=job.due > now)

    # ---- management

    def cancel(self, ids: Sequence[str], now: int) -> list[Cancelled]:
        """Cancel, or ask."""
        return [self._cancel(job_id, now) for job_id in ids]

    def _cancel(self, job_id: str, now: int) -> Cancelled:
        job = self.jobs.get(job_id)
        if job is None:
            return Cancelled.UNKNOWN
        if job.state in FINAL:
            return Cancelled.FINAL
        state = after(job.state, Event.CANCEL)
        if state is JobState.RUNNING:
            job.cancel_requested = True
            return Cancelled.REQUESTED
        self._end(job, state, now, "cancelled")
        return Cancelled.CANCELLED

    def replay(self, ids: Sequence[str], now: int) -> list[Replayed]:
        """Make ended jobs available again."""
        return [self._replay(job_id, now) for job_id in ids]

    def _replay(self, job_id: str, now: int) -> Replayed:
        job = self.jobs.get(job_id)
        if job is None:
            return Replayed.UNKNOWN
        if job.state not in sources_of(Event.REPLAY):
            return Replayed.REFUSED
        if job.spec.unique is not None and self.holders(job.spec.unique.key):
            return Replayed.CONFLICT
        job.state, job.due = after(job.state, Event.REPLAY), now
        job.attempt = job.crashes = job.interruptions = job.parks = 0
        job.cancel_requested, job.reason = False, ""
        job.finished_at = job.expires_at = None
        self._tell(job_id, now)
        return Replayed.REPLAYED

    def purge(self, queue: str, now: int) -> int:
        """Delete what has not begun."""
        ids = [
            job.spec.id for job in self.jobs.values()
            if job.spec.queue == queue and job.state not in FINAL
            and job.state is not JobState.RUNNING
        ]  # fmt: skip
        for job_id in ids:
            del self.jobs[job_id]
        self.gone.update(ids)
        for job_id in ids:
            self._tell(job_id, now)
        return len(ids)

    def prune(self, keep: float, now: int) -> int:
        """Forget what is over."""
        ids = [job.spec.id for job in self.jobs.values() if self._is_over(job, keep, now)]
        for job_id in ids:
            del self.jobs[job_id]
        self.gone.update(ids)
        return len(ids)

    def _is_over(self, job: ModelJob, keep: float, now: int) -> bool:
        if job.finished_at is None:
            return False
        ttl = job.spec.failed_ttl if job.state is JobState.FAILED else job.spec.result_ttl
        if ttl is None or now < job.finished_at + max(ttl, keep) * MICRO:
            return False
        return all(one.state in FINAL for one in self.successors(job.spec.id))

    # ---- what waits and lists show

    def has_work(self, queues: Sequence[str], lanes: frozenset[Lane], *, others: bool) -> bool:
        """Whether a claim would find something now."""
        return any(
            job.state is JobState.AVAILABLE and job.spec.queue not in self.paused
            and (others or job.spec.queue in queues) and job.spec.lane in lanes
            for job in self.jobs.values()
        )  # fmt: skip


def _due(spec: JobSpec, now: int) -> int:
    return later(now, spec.delay) if spec.eta is None else spec.eta
