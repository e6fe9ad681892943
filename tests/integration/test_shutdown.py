"""SIGTERM to a worker process: what starts, what is handed back, and how long it takes."""

from __future__ import annotations

import signal
from functools import partial

import anyio
import pytest

from taskflow._core.states import JobState

from .conftest import Place, records
from .ledger import uptime
from .processes import wait_until
from .stop_jobs import Naps

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
pytestmark = [pytest.mark.slow("a worker starts, drains and ends"), pytest.mark.timeout(60)]

LONG = 50
SHORT = 1500
SLOTS = 60


async def dispatch_naps(place: Place) -> tuple[list[str], list[str]]:
    """Long naps first, then short ones for the other slots."""
    async with place.app() as app:
        urgent = [Naps(seconds=60).options(priority=10) for _ in range(LONG)]
        long = await app.dispatch_many(urgent)
        short = await app.dispatch_many([Naps(seconds=0.01) for _ in range(SHORT)])
    return [job.id for job in long], [job.id for job in short]


@BACKENDS
def test_sigterm_starts_nothing_new_and_hands_back_what_it_cannot_end(
    place: Place, backend: str
) -> None:
    long, short = anyio.run(dispatch_naps, place)
    flags = ("--concurrency", str(SLOTS), "--grace", "1", "--cancel-grace", "2")
    with place.worker("worker", backend, *flags) as worker:
        wait_until(lambda: len(place.ledger.notes("end")) > 20, 20, "jobs run in all slots")
        signalled = uptime()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    started = {one.job_id: one.at for one in place.ledger.notes("start")}
    assert set(long) <= set(started)
    assert len(started) < LONG + SHORT, "nothing was left to be started"
    assert max(started.values()) < signalled + 0.1
    found = anyio.run(records, place, [*long, *short])
    for job_id in long:
        record = found[job_id]
        assert place.ledger.said(job_id) == ["start", "stopped"]
        assert (record.state, record.attempt) == (JobState.AVAILABLE, 0)
        assert (record.interruptions, record.crashes) == (1, 0)
    for job_id in short:
        record = found[job_id]
        if job_id in started:
            assert (record.state, record.attempt) == (JobState.COMPLETED, 1)
        else:
            assert (record.state, record.attempt) == (JobState.AVAILABLE, 0)
            assert (record.interruptions, record.crashes) == (0, 0)


async def dispatch_some(place: Place) -> list[str]:
    async with place.app() as app:
        return [job.id for job in await app.dispatch_many([Naps(seconds=60) for _ in range(3)])]


@BACKENDS
def test_a_second_signal_skips_the_wait(place: Place, backend: str) -> None:
    ids = anyio.run(dispatch_some, place)
    with place.worker("worker", backend, "--grace", "600") as worker:
        wait_until(lambda: len(place.ledger.notes("start")) == 3, 20, "the jobs run")
        worker.send_signal(signal.SIGTERM)
        place.wait_for("worker", "again to stop them now")
        assert place.ledger.notes("stopped") == []  # it waits for them
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    for record in anyio.run(partial(records, place, ids)).values():
        assert (record.state, record.attempt) == (JobState.AVAILABLE, 0)
        assert record.interruptions == 1
    assert len(place.ledger.notes("stopped")) == 3
