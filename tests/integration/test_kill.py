"""kill -9 of the worker while jobs run: nothing is lost, and each repeat has its reason."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import partial
from pathlib import Path

import anyio
import pytest

from taskflow import App
from taskflow._core.states import JobState

from .kill_jobs import InLoop, InProcess, InProcessLoop, InThread
from .processes import children_of, is_alive, running_worker, start_worker, terminate, wait_until

pytestmark = [pytest.mark.slow("kills a worker five times"), pytest.mark.timeout(180)]

JOBS = 500
KILLS = 5
FLAGS = (
    "--lease", "2", "--concurrency", "20", "--process-slots", "6", "--max-crashes", "10",
    "--grace", "5", "--cancel-grace", "1",
)  # fmt: skip


def has_grown(ledger: Path, lines: int) -> bool:
    return len(ledger.read_text().splitlines()) > lines


def none_alive(pids: list[int]) -> bool:
    return not any(map(is_alive, pids))


async def dispatch(url: str, count: int) -> list[str]:
    async with App(url, max_attempts=10) as app:
        kinds = (InLoop, InThread, InLoop, InThread, InProcess, InProcessLoop)
        jobs = await app.dispatch_many([kinds[n % len(kinds)](n=n) for n in range(count)])
        return [job.id for job in jobs]


async def states(url: str, ids: list[str]) -> dict[str, int]:
    async with App(url) as app:
        found: dict[str, int] = defaultdict(int)
        for start in range(0, len(ids), 500):
            for fetched in await app.port.fetch(ids[start : start + 500]):
                assert fetched is not None
                found[fetched.record.state] += 1
        return dict(found)


def read_ledger(path: Path) -> dict[str, list[tuple[float, int, int, str]]]:
    """By job: (time, pid, delivery, start or end)."""
    lines: dict[str, list[tuple[float, int, int, str]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        at, pid, job_id, delivery, what = line.split()
        lines[job_id].append((float(at), int(pid), int(delivery), what))
    return lines


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_kill_nine(tmp_path: Path, backend: str) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    ledger = tmp_path / "ledger"
    ledger.touch()
    ids = anyio.run(dispatch, url, JOBS)
    extra = {"TASKFLOW_URL": url, "KILL_LEDGER": str(ledger)}
    flags = (*FLAGS, "--backend", backend)
    rng = random.Random(f"{backend}")
    killed_children: list[int] = []
    for _ in range(KILLS):
        before = len(ledger.read_text().splitlines())
        worker = start_worker("tests.integration.kill_jobs:app", *flags,
                              log=tmp_path / "worker.log", **extra)  # fmt: skip
        try:
            wait_until(partial(has_grown, ledger, before + 5), 30, "jobs run again")
            anyio.run(anyio.sleep, rng.uniform(0.1, 1.0))
            killed_children += children_of(worker.pid)
        finally:
            worker.kill()
            worker.wait()
        gone = partial(none_alive, killed_children)
        wait_until(gone, 2, "children are gone")
    assert killed_children
    with running_worker("tests.integration.kill_jobs:app", *flags,
                        log=tmp_path / "worker.log", **extra) as worker:  # fmt: skip
        wait_until(lambda: anyio.run(states, url, ids) == {JobState.COMPLETED: JOBS}, 90,
                   "every job completes")  # fmt: skip
        assert terminate(worker) == 0
    check_ledger(read_ledger(ledger), ids)


def check_ledger(lines: dict[str, list[tuple[float, int, int, str]]], ids: list[str]) -> None:
    """Every job ended; a second delivery exists only where the first was cut by a kill."""
    assert set(lines) == set(ids)
    for job_id, entries in lines.items():
        deliveries = {delivery for _, _, delivery, _ in entries}
        ends = [delivery for _, _, delivery, what in entries if what == "end"]
        assert max(deliveries) in ends, f"{job_id}: the last delivery did not end"
        for delivery in deliveries:
            assert sum(1 for d in ends if d == delivery) <= 1, f"{job_id}: one delivery ran twice"
        # An earlier delivery that ended was killed between its end and its settle: then nobody
        # settled it, and its pid is not the one that ended the job.
        pids = {delivery: pid for _, pid, delivery, _ in entries}
        for delivery in deliveries - {max(deliveries)}:
            assert pids[delivery] != pids[max(deliveries)], f"{job_id}: repeated without a kill"
