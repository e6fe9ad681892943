"""Workers whose clocks are days off. Time is the store's: they do no harm.

SQLite has no server, so its time is that of the process at hand, and all processes of a machine
share one clock. What holds there even so: leases are counted on the uptime, which nobody shifts.
"""

from __future__ import annotations

import ast
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any, NamedTuple

import anyio
import pytest

import taskflow
from taskflow import App, Job, JobRecord
from taskflow._core.states import JobState

from .clock_jobs import Rests, RestsInChild, Sends
from .conftest import Place
from .processes import ROOT, terminate

pytestmark = [pytest.mark.slow("waits for leases and delays"), pytest.mark.timeout(180)]

DAY = 86_400
FAST, SLOW = 3 * DAY, -5 * DAY
LEASE = 3
SLOTS = 3
DELAY = 2.0
FLAGS = ("--lease", str(LEASE), "--concurrency", str(SLOTS), "--process-slots", "1")
SECOND = timedelta(seconds=1)


class Scene(NamedTuple):
    """A fast worker and a slow one."""

    place: Place
    workers: dict[int, Popen[bytes]]
    """By the shift of its clock."""
    is_served: bool
    """There is a server that has the time."""

    async def started(self, jobs: list[Job[Any]]) -> dict[str, int]:
        """Wait until all run; by which process."""
        with anyio.fail_after(60):
            while True:
                notes = self.place.ledger.notes("start")
                found = {note.job_id: note.pid for note in notes}
                if all(job.id in found for job in jobs):
                    return {job.id: found[job.id] for job in jobs}
                await anyio.sleep(0.02)

    def start_of(self, job_id: str) -> float:
        """When its body began, in seconds of the machine's uptime."""
        return next(one.at for one in self.place.ledger.notes("start") if one.job_id == job_id)


def shifted(seconds: int) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}/tests/integration/shifted:{ROOT}", "CLOCK_SHIFT": str(seconds)}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_wrong_clocks_do_no_harm(tmp_path: Path, url: str, backend: str) -> None:
    place = Place(tmp_path, url, "tests.integration.clock_jobs:app")
    with (
        place.worker("fast", backend, *FLAGS, **shifted(FAST)) as fast,
        place.worker("slow", backend, *FLAGS, **shifted(SLOW)) as slow,
    ):
        place.wait_ready("fast", "slow")
        ours = Scene(place, {FAST: fast, SLOW: slow}, not url.startswith("sqlite"))
        anyio.run(main, ours, SLOW if backend == "asyncio" else FAST, backend=backend)
        killed, left = (slow, fast) if backend == "asyncio" else (fast, slow)
        assert killed.wait(10) == -9
        assert terminate(left, 30) == 0


async def main(ours: Scene, dies: int) -> None:
    async with ours.place.app() as app:
        await live_leases_stay(ours, app)
        if ours.is_served:
            await delays_are_the_stores(ours, app)
        await dead_leases_end(ours, app, dies)


async def long_ones(app: App[Any], seconds: float) -> list[Job[Any]]:
    """As many as keep both workers busy."""
    kinds = [Rests, Rests, RestsInChild] * 2
    naps = [kind(seconds=seconds).options(result_ttl=None) for kind in kinds]
    return list(await app.dispatch_many(naps))


async def live_leases_stay(ours: Scene, app: App[Any]) -> None:
    """Each runs for longer than a lease and its grace, in a worker of its own idea of the time, and once."""
    began = datetime.now(UTC)
    jobs = await long_ones(app, 1.5 * LEASE)
    shifts = set()
    for job in jobs:
        told = await job.result(timeout=60)
        shifts.add(round((told - time.time()) / DAY))
        record = await job.record()
        assert (record.state, record.attempt, record.crashes) == (JobState.COMPLETED, 1, 0)
        if ours.is_served:
            check_times(record, began)
    assert shifts == {3, -5}, "their clocks are not off"


def check_times(record: JobRecord, began: datetime) -> None:
    """They are the store's, and this process has the same time."""
    assert record.started_at is not None
    assert record.finished_at is not None
    order = [began - SECOND, record.dispatched_at, record.started_at, record.finished_at]
    assert order == sorted(order)
    assert record.finished_at < datetime.now(UTC) + SECOND


async def delays_are_the_stores(ours: Scene, app: App[Any]) -> None:
    """Whoever dispatches, and whoever claims."""
    hour = timedelta(hours=1)
    later = [
        await Rests().delay(hour).dispatch(),
        await Rests().options(eta=datetime.now(UTC) + hour).dispatch(),
    ]
    began = datetime.now(UTC)
    senders = await app.dispatch_many([Sends(after=DELAY) for _ in range(2 * SLOTS)])
    for sender in senders:
        sent = app.handle(await sender.result(timeout=60), Rests)
        await sent.result(timeout=60)
        assert ours.start_of(sent.id) >= ours.start_of(sender.id) + DELAY
        record = await sent.record()
        check_times(record, began)
        assert record.due_at >= record.dispatched_at + timedelta(seconds=DELAY)
    for job in later:
        assert (await job.record()).state is JobState.SCHEDULED


async def dead_leases_end(ours: Scene, app: App[Any], dies: int) -> None:
    """Those of a killed worker, and no others."""
    jobs = await long_ones(app, 2.5)
    await ours.started(jobs)
    workers = {job.id: (await job.record()).worker_id or "" for job in jobs}
    killed = ours.workers[dies]
    killed.kill()
    cut = 0
    for job in jobs:
        await job.result(timeout=60)
        record = await job.record()
        if record.crashes:
            assert f":{killed.pid}:" in workers[job.id]
            cut += 1
        assert record.attempt == 1 + record.crashes < 3
    assert cut > 0


def test_nothing_else_tells_the_time() -> None:
    """The shift reaches the module ``time``; a ``datetime`` would read the clock by itself."""
    for file in Path(taskflow.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
                assert ast.unparse(node.value) not in {"datetime", "date"}, file
