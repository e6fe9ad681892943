"""What one process asks for, a worker in another does at once: cancel, start, start when due."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from taskflow import App, Job
from taskflow.errors import JobCancelledError

from .conftest import Place
from .ledger import uptime
from .processes import is_alive, terminate
from .stop_jobs import Naps, NapsInChild

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
pytestmark = [pytest.mark.slow("starts a worker process"), pytest.mark.timeout(60)]

SOON = 2.0
"""Seconds; a worker that only polled would look every five."""


async def started(place: Place, job: Job[Any]) -> int:
    """Wait until the body runs; its process."""
    with anyio.fail_after(20):
        while True:
            for one in place.ledger.notes("start"):
                if one.job_id == job.id:
                    return one.pid
            await anyio.sleep(0.02)


async def cancel_soon(job: Job[Any]) -> None:
    with anyio.fail_after(1):
        await job.cancel()
        with pytest.raises(JobCancelledError):
            await job.result()


@BACKENDS
def test_cancel_from_another_process_stops_a_running_job(place: Place, backend: str) -> None:
    async def main() -> None:
        async with place.app():
            naps = await Naps(seconds=60).dispatch()
            child = await NapsInChild(seconds=60).dispatch()
            await started(place, naps)
            pid = await started(place, child)
            await cancel_soon(naps)
            assert place.ledger.said(naps.id) == ["start", "stopped"]
            await cancel_soon(child)
            assert place.ledger.said(child.id) == ["start"]
            assert not is_alive(pid)

    with place.worker("worker", backend) as worker:
        place.wait_ready("worker")
        anyio.run(main, backend=backend)
        assert terminate(worker) == 0


@BACKENDS
def test_an_idle_worker_starts_what_is_dispatched(place: Place, backend: str) -> None:
    async def main() -> None:
        async with place.app() as app:
            for _ in range(3):
                with anyio.fail_after(SOON):
                    assert await (await Naps(seconds=0).dispatch()).result() == "rested"
            await start_when_due(app)

    async def start_when_due(app: App[Any]) -> None:
        for delay in (0.5, 1.5):
            began = uptime()
            job = await Naps(seconds=0).delay(delay).dispatch()
            assert await job.result(timeout=delay + SOON) == "rested"
            at = next(one.at for one in place.ledger.notes("start") if one.job_id == job.id)
            assert at >= began + delay

    with place.worker("worker", backend) as worker:
        place.wait_ready("worker")
        anyio.run(main, backend=backend)
        assert terminate(worker) == 0
