"""Ending attempts: the fence, the law, and everything that follows, in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskflow._core.records import Change, Settled, Verdict
from taskflow._core.states import FINAL, SETTLES, Event, JobState, after
from taskflow.drivers.sqlite import rows
from taskflow.drivers.sqlite.ending import finish_rows, put_away
from taskflow.drivers.sqlite.enqueue import enqueue
from taskflow.drivers.sqlite.leases import is_held
from taskflow.errors import IllegalTransitionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("settle",)

_HOT: Final = (
    "SELECT {fin}, seq, queue, lane, state, delivery, request_id, attempt, interruptions, parks, due,"
    " cancel_requested, result_ttl FROM {jobs} WHERE id IN ({ids})"
)
_COLD: Final = (
    "SELECT {fin} FROM {finished} WHERE id IN ({ids})"
    " UNION ALL SELECT {fin} FROM {dead} WHERE id IN ({ids})"
)
_CHANGE: Final = (
    "UPDATE {jobs} SET state = ?, due = ?, attempt = ?, interruptions = ?, parks = ?, reason = ?,"
    " error = coalesce(?, error), lease_until = NULL, fin_delivery = ?, fin_request = ?,"
    " fin_event = ?, fin_state = ? WHERE seq = ?"
)
_PLAIN: Final = frozenset({Event.COMPLETE, Event.CANCEL})
"""Ends that change no counter of their own."""
_FOLLOWED: Final = "SELECT 1 FROM {edges} WHERE from_id = ? LIMIT 1"
_RESULTS: Final = (
    "INSERT INTO {results} (seq, result)"
    " SELECT column1, column2 FROM (VALUES {pairs}) WHERE column1 IS NOT NULL"
)


class _Job:
    """What is known of one job while the changes are decided, in their order."""

    __slots__ = (
        "asked", "attempt", "delivery", "due", "fin", "fin_state", "interruptions",
        "keeps_result", "lane", "parks", "queue", "request_id", "seq", "state",
    )  # fmt: skip

    def __init__(self, row: tuple[Any, ...]) -> None:
        (_, delivery, request_id, event, self.fin_state, self.seq, self.queue, self.lane, self.state,
         self.delivery, self.request_id, self.attempt, self.interruptions, self.parks, self.due,
         self.asked, ttl) = row  # fmt: skip
        self.fin = (delivery, request_id, event)
        self.keeps_result = ttl != 0


class _Settling:
    """One call: decides in Python, writes in groups."""

    def __init__(self, tx: Tx, changes: Sequence[Change]) -> None:
        ids = dict.fromkeys(change.token.id for change in changes)
        self._tx = tx
        self._jobs = {row[0]: _Job(row) for row in tx.by_ids(_HOT, ids)}
        cold = [job_id for job_id in ids if job_id not in self._jobs]
        self._cold = {row[0]: (row[1:4], row[4]) for row in tx.by_ids(_COLD, cold)} if cold else {}
        self._writes: list[tuple[object, ...]] = []
        self._results: list[tuple[int, bytes]] = []
        self._ended: dict[bool, list[int]] = {False: [], True: []}
        self._finished: dict[tuple[JobState, Event, str, bool], dict[str, int]] = {}

    def apply(self, change: Change) -> Settled:
        if change.event not in SETTLES:
            raise IllegalTransitionError(state=JobState.RUNNING, event=change.event)
        token = change.token
        job = self._jobs.get(token.id)
        if job is None or not is_held(
            (job.state, job.delivery, job.request_id), token.delivery, token.request_id
        ):
            return self._refuse(change, job)
        state = after(
            JobState.RUNNING, change.event, cancel_requested=bool(job.asked), by_holder=True
        )
        self._note(job, change, state)
        if change.follow_ups:
            # What ends here frees its unique key for them.
            self.flush()
            enqueue(self._tx, change.follow_ups)
        return Settled(Verdict.APPLIED, state)

    def _refuse(self, change: Change, job: _Job | None) -> Settled:
        token = change.token
        fin, state = (
            self._cold.get(token.id, (None, None)) if job is None else (job.fin, job.fin_state)
        )
        if fin == (token.delivery, token.request_id, change.event):
            return Settled(Verdict.ALREADY, JobState(str(state)))
        return Settled(Verdict.LOST)

    def _note(self, job: _Job, change: Change, state: JobState) -> None:
        job.attempt -= change.refund
        if change.event is Event.RELEASE:
            job.interruptions += change.started
        elif change.event is Event.PARK:
            job.parks += 1
        reason = "cancelled" if state is JobState.CANCELLED else change.reason
        token = change.token
        job.state, job.fin_state = state, state
        job.fin = (token.delivery, token.request_id, change.event)
        if state in FINAL:
            if state is JobState.COMPLETED and change.result is not None:
                self._keep_result(job, change)
            if change.event in _PLAIN and change.error is None:
                how = (state, change.event, reason, change.refund)
                self._finished.setdefault(how, {})[token.id] = job.seq
                return
            self._ended[state is JobState.FAILED].append(job.seq)
        else:
            if change.event is not Event.RELEASE:
                job.due = rows.later(self._tx.now, change.delay)
            self._tx.news.work.add((job.queue, job.lane))
        self._writes.append(
            (state, job.due, job.attempt, job.interruptions, job.parks, reason,
             rows.pack(change.error), *job.fin, state, job.seq)
        )  # fmt: skip

    def _keep_result(self, job: _Job, change: Change) -> None:
        tx = self._tx
        if job.keeps_result or (
            # Whoever follows reads it, however short it is kept.
            tx.has_edges and tx.run(_FOLLOWED, (change.token.id,)).fetchone() is not None
        ):
            self._results.append((job.seq, change.result or b""))

    def flush(self) -> None:
        """Write what was decided so far."""
        if self._writes:
            self._tx.many(_CHANGE, self._writes)
            self._writes = []
        if self._results:
            self._tx.many_pairs(_RESULTS, self._results)
            self._results = []
        for (state, event, reason, refund), ended in self._finished.items():
            finish_rows(self._tx, ended, state=state, event=event, reason=reason, refund=refund)
        self._finished.clear()
        for is_failed, seqs in self._ended.items():
            put_away(self._tx, seqs, is_failed=is_failed)
            seqs.clear()


def settle(tx: Tx, changes: Sequence[Change]) -> list[Settled]:
    """Apply changes in their order; see ``Driver.settle``."""
    settling = _Settling(tx, changes)
    replies = [settling.apply(change) for change in changes]
    settling.flush()
    return replies
