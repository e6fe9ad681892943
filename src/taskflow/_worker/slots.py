"""A slot: a long-lived task that runs one job after another, and its supervisor.

A body can ruin the task it runs in (a scope left open, a timer that cancels it later). So each slot
runs in a task group of its own; the supervisor sees to it that a slot that ended, in whatever way,
leaves no job without an outcome and is followed by a fresh one.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

import anyio
from anyio.lowlevel import checkpoint

from taskflow import events
from taskflow._core.decide import precheck
from taskflow._core.outcomes import Failed, Outcome, Parked, Released
from taskflow._core.records import Verdict
from taskflow._core.states import JobState
from taskflow._worker.attempt import StopReason
from taskflow._worker.lanes.async_ import SlotBroken
from taskflow._worker.lanes.classify import error_info

if TYPE_CHECKING:
    from taskflow._worker.attempt import Attempt
    from taskflow._worker.lanes import Runner
    from taskflow._worker.runtime import Runtime
    from taskflow._worker.settler import Settler

__all__ = ("Slot",)

logger = logging.getLogger("taskflow.worker")

TURN: Final = 0.001
"""Seconds that jobs which never wait may hold the event loop before others get a turn."""


class Source(Protocol):
    """Where a slot's next job comes from."""

    def next(self, slot: Slot) -> Attempt | None:
        """The next job for the slot, now that its last one has ended."""
        ...


class Slot:
    """Runs one job at a time; ``attempt`` is the one that it holds."""

    def __init__(self, pool: Source, runtime: Runtime, settler: Settler, runner: Runner) -> None:
        self.attempt: Attempt | None = None
        self.runner = runner
        self._pool = pool
        self._runtime = runtime
        self._settler = settler
        self._given = anyio.Event()

    def give(self, attempt: Attempt) -> None:
        """Hand a job to an idle slot."""
        self.attempt = attempt
        self._given.set()

    def wake(self) -> None:
        """Let an idle slot see that the worker stops."""
        self._given.set()

    async def supervise(self) -> None:
        """Keep a slot running until the worker stops."""
        try:
            while not self._runtime.is_stopping:
                try:
                    async with anyio.create_task_group() as task_group:
                        task_group.start_soon(self._serve)
                except* Exception:
                    logger.debug("a slot ended with an error", exc_info=True)
                self._tidy()
        finally:
            await self.runner.aclose()

    def _tidy(self) -> None:
        """After a slot ended: no job without an outcome."""
        attempt = self.attempt
        if attempt is None:
            return
        if attempt.outcome is None:
            if not attempt.began:
                return  # given, not begun: the fresh slot takes it
            self._settler.finish(attempt, Released(started=True))
        self.attempt = None
        self._advance()

    def _advance(self) -> None:
        attempt = self._pool.next(self)
        if attempt is None:
            self._given = anyio.Event()
        self.attempt = attempt

    async def _serve(self) -> None:
        runtime = self._runtime
        while not runtime.is_stopping:
            attempt = self.attempt
            if attempt is None:
                await self._given.wait()
                runtime.turn_began = time.monotonic()
                continue
            is_sound = await self._process(attempt)
            self.attempt = None
            self._advance()
            if not is_sound:
                return
            if time.monotonic() - runtime.turn_began > TURN:
                await checkpoint()
                runtime.turn_began = time.monotonic()

    async def _process(self, attempt: Attempt) -> bool:
        """Run one job to its outcome; False when this task must not run another."""
        outcome, is_sound = self._before(attempt), True
        if outcome is None:
            if self._runtime.port.is_watched:
                self._note_start(attempt)
            try:
                outcome = await self.runner.run(attempt)
            except SlotBroken as broken:
                outcome, is_sound = broken.outcome, False
        if outcome is None:
            return False  # left behind at shutdown, with its lease
        if self._settler.finish(attempt, outcome) and is_sound:
            is_sound = await self._after_failure(attempt)
        return is_sound

    def _before(self, attempt: Attempt) -> Outcome | None:
        """What the job has come to before its body; ``None``: run it."""
        if attempt.stop_reason is StopReason.CANCEL:
            return attempt.stop_outcome()
        now = time.monotonic()
        late = now > attempt.trust_until or now > attempt.start_by
        if late or attempt.stop_reason is not None or self._runtime.is_draining:
            return Released(started=False)
        outcome = precheck(attempt.job, max_crashes=self._runtime.config.max_crashes)
        if outcome is not None:
            return outcome
        if attempt.definition is None:
            return Parked()
        return self._decode(attempt)

    def _decode(self, attempt: Attempt) -> Failed | None:
        """An undecodable payload is a failed attempt: the next deploy may be able to read it."""
        try:
            attempt.payload = self._runtime.app.codec.decode(
                attempt.job.spec.payload, attempt.definition.payload
            )
        except Exception as exc:
            attempt.error = exc
            return Failed(error_info(exc))
        return None

    def _note_start(self, attempt: Attempt) -> None:
        spec = attempt.job.spec
        self._runtime.port.emit(
            events.JobStarted(
                job_id=spec.id, kind=spec.kind, queue=spec.queue, attempt=attempt.job.attempt,
                worker_id=self._runtime.worker_id,
            )
        )  # fmt: skip

    async def _after_failure(self, attempt: Attempt) -> bool:
        """The task's ``failed`` hook, once the failure is stored; best effort and bounded."""
        assert attempt.settled is not None
        self._runtime.body_waits()
        await attempt.settled.wait()
        verdict = attempt.verdict
        if verdict is None or verdict.verdict is not Verdict.APPLIED:
            return True
        if verdict.state is not JobState.FAILED or (
            attempt.payload is None and self._decode(attempt) is not None
        ):
            return True
        try:
            with anyio.move_on_after(self._runtime.config.cancel_grace):
                await self.runner.failed(attempt)
        except Exception:
            logger.exception("the `failed` hook of %s raised", attempt.kind)
            return False
        return True
