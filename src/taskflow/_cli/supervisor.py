"""``--processes N``: keeps N worker processes running and ends them together."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Final

import anyio

from taskflow._cli.errors import USAGE

__all__ = ("Supervisor", "follow_supervisor")

logger = logging.getLogger("taskflow.supervisor")

PARENT_VARIABLE: Final = "_TASKFLOW_SUPERVISOR_PID"
FIRST_PAUSE: Final = 0.5
"""Seconds before a worker that died is started again; doubled up to ``LAST_PAUSE``."""
LAST_PAUSE: Final = 30.0
HEALTHY: Final = 60.0
"""Seconds after which a worker counts as healthy, and the next pause is short again."""
PR_SET_PDEATHSIG: Final = 1


def follow_supervisor() -> None:
    """In a supervised worker: end in order when the supervisor dies."""
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)


class Supervisor:
    """Starts the same command ``count`` times, with one process each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._stopping = anyio.Event()
        self._worst = 0

    async def run(self) -> int:
        """Until a signal, then until all workers have ended; the worst exit code."""
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self._signals)
            async with anyio.create_task_group() as workers:
                for number in range(self._count):
                    workers.start_soon(self._keep, number)
            task_group.cancel_scope.cancel()
        return self._worst

    async def _signals(self) -> None:
        """Pass every signal on; a second one makes the workers hurry."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def _keep(self, number: int) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_one(number)
            if code == USAGE and not self._stopping.is_set():
                self._stop()  # wrong settings stay wrong
            if self._stopping.is_set():
                # It had nothing to finish when the signal found no handler.
                self._worst = max(self._worst, 0 if code == -signal.SIGTERM else abs(code))
                break
            if time.monotonic() - began > HEALTHY:
                pause = FIRST_PAUSE
            logger.error("worker %d ended with %d; starting it again in %g s", number, code, pause)
            with anyio.move_on_after(pause):
                await self._stopping.wait()
            pause = min(2 * pause, LAST_PAUSE)

    async def _run_one(self, number: int) -> int:
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own command, started again
            [sys.executable, "-m", "taskflow", *sys.argv[1:], "--processes", "1"],
            env={**os.environ, PARENT_VARIABLE: str(os.getpid())}, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self._running[number] = process
        try:
            await _ended(process)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            del self._running[number]
        return process.returncode


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended."""
    if not hasattr(os, "pidfd_open"):
        while process.poll() is None:
            await anyio.sleep(0.05)
        return
    pidfd = os.pidfd_open(process.pid)
    try:
        while process.poll() is None:
            await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)
