"""A body that blocks its worker's event loop: when the lease stays, and when it goes."""

from __future__ import annotations

import anyio
import pytest

from taskflow import JobRecord
from taskflow._core.states import JobState

from .conftest import Place
from .processes import terminate
from .stop_jobs import HoldsLoop, Naps

LEASE = 2.0


async def hold_and_nap(place: Place, task: HoldsLoop) -> JobRecord:
    """The job that blocked one worker, while the other worked."""
    async with place.app():
        holds = await task.dispatch()
        with anyio.fail_after(10):
            while not place.ledger.said(holds.id):
                await anyio.sleep(0.02)
        nap = await Naps(seconds=0).dispatch()
        assert await nap.result(timeout=10) == "rested"
        assert (await holds.record()).state is JobState.RUNNING
        assert await holds.result(timeout=20) == 1
        by = {one.job_id: one.pid for one in place.ledger.notes("end")}
        assert by[holds.id] != by[nap.id]
        return await holds.record()


@pytest.mark.slow("blocks a worker for three leases")
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("how", "backend"), [("sleep", "asyncio"), ("spin", "trio")])
def test_a_blocked_loop_keeps_its_lease(place: Place, how: str, backend: str) -> None:
    flags = ("--lease", str(LEASE), "--concurrency", "5")
    task = HoldsLoop(seconds=3 * LEASE, how=how)  # type: ignore[arg-type]
    with (
        place.worker("one", backend, *flags) as one,
        place.worker("two", backend, *flags) as two,
    ):
        place.wait_ready("one", "two")
        record = anyio.run(hold_and_nap, place, task)
        assert [terminate(one), terminate(two)] == [0, 0]
    assert place.ledger.said(record.id) == ["start", "end"]
    assert (record.state, record.delivery, record.attempt) == (JobState.COMPLETED, 1, 1)
    assert record.crashes == 0


async def dispatch(place: Place, task: HoldsLoop) -> str:
    async with place.app():
        return (await task.dispatch()).id


async def finish(place: Place, job_id: str) -> tuple[int, JobRecord]:
    async with place.app() as app:
        job = app.handle(job_id, HoldsLoop)
        return await job.result(timeout=20), await job.record()


@pytest.mark.slow("waits until a stalled worker gives up, and its lease runs out")
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("how", "backend"), [("spin", "asyncio"), ("sleep", "trio")])
def test_beyond_max_stall_the_lease_goes(place: Place, how: str, backend: str) -> None:
    flags = ("--lease", str(LEASE), "--max-stall", "1", "--stall", "exit")
    job_id = anyio.run(dispatch, place, HoldsLoop(seconds=600, how=how))  # type: ignore[arg-type]
    with place.worker("one", backend, *flags) as one:
        assert one.wait(30) == 70
    log = place.log("one").read_text()
    assert f"inside HoldsLoop {job_id}" in log
    assert "_hold" in log, "no stack shows where it stands"
    with place.worker("two", backend, *flags) as two:
        delivery, record = anyio.run(finish, place, job_id)
        assert terminate(two) == 0
    assert delivery == 2
    assert (record.state, record.attempt, record.crashes) == (JobState.COMPLETED, 2, 1)
    assert place.ledger.said(job_id) == ["start", "start", "end"]
