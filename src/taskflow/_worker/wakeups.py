"""Turns the store's wake-ups into signals: work for the fetcher, cancels for the leases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from anyio import CancelScope

from taskflow._core.records import Wait, Wake
from taskflow.errors import DriverError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from taskflow._worker.leases import Leases
    from taskflow._worker.runtime import Runtime

__all__ = ("Wakeups",)

FLOOR: Final = 5.0
"""Seconds after which the store is asked without any hint: nothing rests on wake-ups."""
REFUSED_PAUSE: Final = 1.0


class Wakeups:
    """Waits at the store, for as long as the worker runs."""

    def __init__(self, runtime: Runtime, leases: Leases) -> None:
        self._runtime = runtime
        self._leases = leases

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Wait until cancelled."""
        task_status.started()
        while True:
            wake: Wake | None = None
            with CancelScope() as self._runtime.waiting:
                try:
                    wake = await self._wait()
                    self._runtime.refusals.clear("wait")
                except DriverError as exc:
                    self._runtime.refusals.note("wait", exc)
                    await anyio.sleep(REFUSED_PAUSE)
            if wake is None:
                continue  # what is waited for has changed
            if wake.cancels:
                await self._leases.ask_now()
            if wake.work or not wake.cancels:
                self._runtime.signal_work()

    async def _wait(self) -> Wake:
        runtime, port = self._runtime, self._runtime.port
        held = runtime.held
        request = Wait(
            queues=runtime.queues if runtime.hungry else (),
            others=runtime.others and bool(runtime.hungry), lanes=runtime.hungry,
            worker_id=runtime.worker_id,
            cancelling=frozenset(
                job_id for job_id, attempt in held.items()
                if attempt.is_settling or attempt.stop_reason is not None
            ),
            timeout=min(FLOOR, port.timing.beat),
        )  # fmt: skip
        return await port.persist("wait", lambda: port.wait(request))
