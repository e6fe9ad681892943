"""Renews every lease of the worker, from a thread of its own.

A blocked event loop must not lose leases, so renewals run in another thread, on an event loop and a
driver of their own (the twin). That thread never waits for the worker's loop: it posts. When the
loop has not moved for ``max_stall`` the leases are let go, because such a loop settles nothing.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from taskflow import events
from taskflow._core.records import Extended, Renewal
from taskflow._port import Port
from taskflow._worker.attempt import Attempt, StopReason
from taskflow._worker.posting import post
from taskflow.errors import DriverError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from taskflow._worker.runtime import Runtime

__all__ = ("STALLED_EXIT_CODE", "Leases")

logger = logging.getLogger("taskflow.worker")

STALLED_EXIT_CODE: Final = 70
"""How a worker ends whose event loop has not moved for ``max_stall``."""
AWAY_PAUSE: Final = 1.0
"""The longest pause (seconds) before a renewal that failed is tried again."""
PROGRESS_PAUSE: Final = 1.0
"""Seconds between two writes of progress."""


class Leases:
    """The renewal service. ``held`` of the runtime is what it renews.

    Args:
        runtime: The worker's state.
        backend: The kind of event loop for the thread: the worker's own.
        kill_children: Ends the process children at once, from any thread.
        owns_process: A stall ends the process, when the settings do not say.
        as_task: Run on the worker's own loop, without a thread: for simulations in virtual time.
    """

    def __init__(
        self, runtime: Runtime, *, backend: str, kill_children: Any, owns_process: bool,
        as_task: bool = False,
    ) -> None:  # fmt: skip
        self._runtime = runtime
        self._as_task = as_task
        self._backend = backend
        self._kill_children = kill_children
        self._timing = runtime.port.timing
        self._max_stall = runtime.config.max_stall or 5 * runtime.config.lease
        self._stall = runtime.config.stall or ("exit" if owns_process else "log")
        self._loop: EventLoopToken | None = None
        self._beat_loop: EventLoopToken | None = None
        self._nudge: anyio.Event | None = None
        self._stop: anyio.Event | None = None
        self._beats = 0
        self._asked = 0
        self._answered = anyio.Event()
        self._moved_at = time.monotonic()
        self._is_stalled = False
        self._changed: set[str] = set()
        self._progress_at = 0.0
        self._away_since: float | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start the thread; stop and join it when cancelled."""
        self._loop = current_token()
        ready, ended = anyio.Event(), anyio.Event()
        if self._as_task:
            task_status.started()
            await self._main(ready)
            return
        failure: list[BaseException] = []
        thread = threading.Thread(
            target=self._thread, args=(ready, ended, failure), name="taskflow-leases", daemon=True
        )
        thread.start()
        try:
            await ready.wait()
            if failure:
                raise failure[0]
            task_status.started()
            await ended.wait()
            raise failure[0] if failure else RuntimeError("the renewal thread ended by itself")
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(self._timing.call + 1):
                if self._beat_loop is not None and self._stop is not None:
                    post(self._beat_loop, self._stop.set)
                await ended.wait()

    # ---- called on the worker's loop

    async def ask_now(self) -> None:
        """Renew at once, because a cancellation was asked for; returns after that beat."""
        answered = self._answered
        self._nudge_now()
        with anyio.move_on_after(self._timing.call):
            await answered.wait()

    def progressed(self, attempt: Attempt) -> None:
        """A body reported progress (from any thread): store it within a second."""
        self._changed.add(attempt.id)
        if len(self._changed) == 1:
            self._nudge_now()
        port = self._runtime.port
        if port.is_watched and attempt.progress is not None and self._loop is not None:
            progress = attempt.progress
            event = events.JobProgressed(
                job_id=attempt.id, fraction=progress.fraction, note=progress.note
            )
            post(self._loop, port.emit, event)

    def _nudge_now(self) -> None:
        loop = self._beat_loop
        if loop is not None:
            post(loop, self._set_nudge)

    def _moved(self) -> None:
        """Runs on the worker's loop: it moves."""
        self._moved_at = time.monotonic()
        if self._is_stalled:
            self._is_stalled = False
            logger.warning("the event loop moves again")

    def _answer(self) -> None:
        self._answered.set()
        self._answered = anyio.Event()

    def _stop_attempt(self, job_id: str, delivery: int, reason: StopReason) -> None:
        attempt = self._runtime.held.get(job_id)
        if attempt is None or attempt.job.token.delivery != delivery or attempt.is_settling:
            return
        if reason is StopReason.LOST:
            logger.warning(
                "%s %s: the lease is lost; the attempt is stopped", attempt.kind, job_id,
                extra={"job_id": job_id},
            )  # fmt: skip
            kind = attempt.kind
            self._runtime.port.emit(events.LeaseLost(job_id=job_id, kind=kind))
        attempt.stop(reason)

    # ---- on the renewal thread

    def _thread(self, ready: anyio.Event, ended: anyio.Event, failure: list[BaseException]) -> None:
        assert self._loop is not None
        try:
            anyio.run(self._main, ready, backend=self._backend)
        except BaseException as exc:  # handed to the worker's loop, which raises it
            failure.append(exc)
        finally:
            post(self._loop, ready.set)
            post(self._loop, ended.set)

    async def _main(self, ready: anyio.Event) -> None:
        assert self._loop is not None
        self._beat_loop = current_token()
        self._stop, self._nudge = anyio.Event(), anyio.Event()
        runtime = self._runtime
        driver = runtime.port.driver.twin()
        await driver.open()
        try:
            port = Port(
                driver, lease=self._timing.lease, call_timeout=runtime.config.call_timeout,
                instrument=None,
            )  # fmt: skip
            post(self._loop, ready.set)
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._beat_on, port)
                await self._stop.wait()
                task_group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(self._timing.call):
                await driver.aclose()

    def _set_nudge(self) -> None:
        assert self._nudge is not None
        self._nudge.set()

    async def _beat_on(self, port: Port) -> None:
        pause = self._timing.beat
        while True:
            assert self._nudge is not None
            with anyio.move_on_after(pause):
                await self._nudge.wait()
            self._nudge = anyio.Event()
            self._check_loop()
            is_good = await self._beat(port)
            self._check_trust()
            pause = self._timing.beat if is_good else min(AWAY_PAUSE, self._timing.lease / 8)
            if self._changed:
                pause = min(pause, PROGRESS_PAUSE)

    async def _beat(self, port: Port) -> bool:
        assert self._loop is not None
        if self._is_stalled:
            return True  # let the leases go: the loop settles nothing
        held = list(self._runtime.held.values())
        changed = self._take_changed()
        limit = port.driver.facts.max_batch
        try:
            for start in range(0, len(held), limit):
                await self._extend(port, held[start : start + limit], changed)
        except DriverError as exc:
            self._changed |= changed
            if self._away_since is None:
                self._away_since = time.monotonic()
                logger.warning("leases could not be renewed, trying again: %s", exc)
            return False
        finally:
            post(self._loop, self._answer)
        if held and self._away_since is not None:
            seconds = time.monotonic() - self._away_since
            self._away_since = None
            logger.info("leases are renewed again after %.1f s", seconds)
        return True

    def _take_changed(self) -> set[str]:
        now = time.monotonic()
        if now - self._progress_at < PROGRESS_PAUSE:
            return set()
        changed, self._changed = self._changed, set()
        if changed:
            self._progress_at = now
        return changed

    async def _extend(self, port: Port, held: list[Attempt], changed: set[str]) -> None:
        assert self._loop is not None
        renewals = [Renewal(a.job.token, a.progress if a.id in changed else None) for a in held]
        sent_at = time.monotonic()
        replies = await port.extend(renewals, self._timing.lease)
        trust_until = sent_at + self._timing.lease - self._timing.margin
        for attempt, reply in zip(held, replies, strict=True):
            token = attempt.job.token
            if reply is Extended.LOST:
                post(self._loop, self._stop_attempt, token.id, token.delivery, StopReason.LOST)
                continue
            attempt.trust_until = trust_until
            if reply is Extended.CANCEL and attempt.stop_reason is None:
                post(self._loop, self._stop_attempt, token.id, token.delivery, StopReason.CANCEL)

    def _check_trust(self) -> None:
        """Stop what could not be renewed in time: somebody else may have it soon."""
        assert self._loop is not None
        now = time.monotonic()
        for attempt in list(self._runtime.held.values()):
            if now > attempt.trust_until and attempt.began:
                token = attempt.job.token
                post(self._loop, self._stop_attempt, token.id, token.delivery, StopReason.LOST)

    # ---- the stall watchdog

    def _check_loop(self) -> None:
        assert self._loop is not None
        post(self._loop, self._moved)
        stalled = time.monotonic() - self._moved_at
        if stalled > self._max_stall and not self._is_stalled:
            self._is_stalled = True
            self._report_stall(stalled)

    def _report_stall(self, stalled: float) -> None:
        runtime = self._runtime
        guilty = runtime.stepping.attempt
        kinds = [guilty] if guilty is not None else [a for a in runtime.held.values() if a.began]
        names = ", ".join(f"{a.kind} {a.id}" for a in kinds) or "no task"
        logger.critical(
            "the event loop has not moved for %.1f s, inside %s: its leases are let go\n%s",
            stalled, names, _stacks(), extra={"worker_id": runtime.worker_id},
        )  # fmt: skip
        runtime.port.emit(
            events.LoopStalled(
                worker_id=runtime.worker_id, seconds=stalled,
                kinds=tuple(a.kind for a in kinds),
            )
        )  # fmt: skip
        if self._stall == "exit":
            self._kill_children()
            logging.shutdown()
            sys.stderr.flush()
            os._exit(STALLED_EXIT_CODE)


def _stacks() -> str:
    """The stack of every thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()  # noqa: SLF001
    ]
    return "\n".join(parts)
