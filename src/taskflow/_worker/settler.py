"""Settles attempts in natural batches: while one settle is under way, the next ones gather.

Idle, a single outcome goes out at once. Settles run outside the jobs' scopes, so no cancellation
of a job can reach them.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import anyio

from taskflow import events
from taskflow._core.decide import decide
from taskflow._core.records import Change, Settled, Verdict
from taskflow._core.states import Event
from taskflow.errors import DriverError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from taskflow._core.outcomes import Outcome
    from taskflow._worker.attempt import Attempt
    from taskflow._worker.runtime import Runtime

__all__ = ("Settler",)

logger = logging.getLogger("taskflow.worker")


class Settler:
    """The one way in which this worker ends attempts."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pending: list[tuple[Attempt, Change]] = []
        self._some = anyio.Event()
        self._empty = anyio.Event()
        self._empty.set()

    def finish(self, attempt: Attempt, outcome: Outcome) -> bool:
        """Decide and hand in, without waiting; True when a ``failed`` hook is to follow."""
        change = decide(attempt.job, outcome)
        attempt.outcome = outcome
        attempt.is_settling = True
        hooked = (
            change.event is Event.FAIL
            and attempt.definition is not None
            and attempt.definition.failed is not None
        )
        if hooked:
            attempt.settled = anyio.Event()
        self._pending.append((attempt, change))
        if len(self._pending) == 1:
            self._some.set()
            if self._empty.is_set():
                self._empty = anyio.Event()
        return hooked

    async def flushed(self) -> None:
        """Return when everything handed in so far has been settled or given up."""
        await self._empty.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Settle until cancelled."""
        task_status.started()
        limit = self._runtime.port.driver.facts.max_batch
        while True:
            await self._some.wait()
            batch, self._pending = self._pending[:limit], self._pending[limit:]
            if not self._pending:
                self._some = anyio.Event()
            await self._settle(batch)
            if not self._pending:
                self._empty.set()

    async def _settle(self, batch: list[tuple[Attempt, Change]]) -> None:
        port = self._runtime.port
        changes = [change for _, change in batch]
        until = max(attempt.trust_until for attempt, _ in batch) + port.timing.lease
        try:
            replies = await port.persist("settle", lambda: port.settle(changes), until=until)
        except DriverError as exc:
            if not exc.retryable:
                self._runtime.refusals.note("settle", exc)
            # A store that is away for too long is not a fault that a stack would explain.
            logger.log(
                logging.ERROR if exc.retryable else logging.DEBUG,
                "%d outcome(s) could not be stored; their jobs will run again: %s", len(batch), exc,
                extra={"job_ids": [one.token.id for one in changes]},
            )  # fmt: skip
            for attempt, change in batch:
                self._settled(attempt, change, Settled(Verdict.LOST))
            return
        self._runtime.refusals.clear("settle")
        for (attempt, change), reply in zip(batch, replies, strict=True):
            if reply.verdict is Verdict.LOST:
                _warn_of_loss(attempt, change)
            self._settled(attempt, change, reply)

    def _settled(self, attempt: Attempt, change: Change, reply: Settled) -> None:
        runtime = self._runtime
        if runtime.held.get(change.token.id) is attempt:
            del runtime.held[change.token.id]
        attempt.verdict = reply
        if attempt.settled is not None:
            attempt.settled.set()
        if runtime.port.is_watched:
            self._emit(attempt, change, reply)

    def _emit(self, attempt: Attempt, change: Change, reply: Settled) -> None:
        port, spec = self._runtime.port, attempt.job.spec
        if change.event is Event.RELEASE:
            port.emit(events.JobReleased(job_id=spec.id, kind=spec.kind))
            return
        seconds = time.monotonic() - attempt.began_at if attempt.began else 0.0
        port.emit(
            events.JobFinished(
                job_id=spec.id, kind=spec.kind, queue=spec.queue, attempt=attempt.job.attempt,
                worker_id=self._runtime.worker_id, outcome=change.event.value,
                state=reply.state.value if reply.state else "", seconds=seconds,
            )
        )  # fmt: skip


def _warn_of_loss(attempt: Attempt, change: Change) -> None:
    logger.warning(
        "%s %s was somebody else's by the time it ended (%s); nothing was stored",
        attempt.kind, change.token.id, change.event,
        extra={"job_id": change.token.id, "event": str(change.event)},
    )  # fmt: skip
