"""kill -9 of the worker while jobs run: nothing is lost, and each repeat has its reason."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from functools import partial
from itertools import pairwise
from pathlib import Path

import anyio
import hypothesis
import pytest

from taskflow import App
from taskflow._core.states import JobState

from .kill_jobs import InLoop, InProcess, InProcessLoop, InThread
from .ledger import uptime
from .processes import children_of, is_alive, running_worker, start_worker, terminate, wait_until

pytestmark = [pytest.mark.slow("kills a worker again and again"), pytest.mark.timeout(240)]

JOBS, KILLS, LEASE = (500, 5, 2) if hypothesis.settings().max_examples > 100 else (60, 2, 3)
KILL_TAKES = 10.0
"""Seconds in which a killed worker and its children are gone; lines may still come until then."""
FLAGS = (
    "--lease", str(LEASE), "--concurrency", "20", "--process-slots", "6", "--max-crashes", "10",
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
    """By job: (time, the worker's pid, delivery, start or end)."""
    lines: dict[str, list[tuple[float, int, int, str]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        at, pid, job_id, delivery, what = line.split()
        lines[job_id].append((float(at), int(pid), int(delivery), what))
    return lines


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_kill_nine(tmp_path: Path, url: str, backend: str) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    ids = anyio.run(dispatch, url, JOBS)
    extra = {"TASKFLOW_URL": url, "KILL_LEDGER": str(ledger)}
    flags = (*FLAGS, "--backend", backend)
    rng = random.Random(f"{backend}")
    killed_children: list[int] = []
    kills: dict[int, float] = {}
    for turn in range(KILLS):
        goal = len(ledger.read_text().splitlines()) + rng.randint(5, 2 * JOBS // (KILLS + 2))
        worker = start_worker("tests.integration.kill_jobs:app", *flags,
                              log=tmp_path / "worker.log", **extra)  # fmt: skip
        try:
            wait_until(partial(has_grown, ledger, goal), 60, "jobs run again")
            if turn == 0:
                wait_until(partial(children_of, worker.pid), 60, "it has children")
            time.sleep(rng.uniform(0, 0.1))
            killed_children += children_of(worker.pid)
        finally:
            kills[worker.pid] = uptime()
            worker.kill()
            worker.wait()
        gone = partial(none_alive, killed_children)
        wait_until(gone, KILL_TAKES, "children are gone")
    assert killed_children
    with running_worker("tests.integration.kill_jobs:app", *flags,
                        log=tmp_path / "worker.log", **extra) as worker:  # fmt: skip
        wait_until(lambda: (tmp_path / "worker.log").read_text().count("is ready") > KILLS, 60,
                   "the last worker is ready")  # fmt: skip
        wait_until(lambda: anyio.run(states, url, ids) == {JobState.COMPLETED: JOBS}, 90,
                   "every job completes")  # fmt: skip
        assert terminate(worker) == 0
    check_ledger(read_ledger(ledger), ids, kills)


def check_ledger(
    lines: dict[str, list[tuple[float, int, int, str]]], ids: list[str], kills: dict[int, float]
) -> None:
    """Every job ended; one that began again was in the hands of a worker that was killed."""
    assert set(lines) == set(ids)
    for job_id, entries in lines.items():
        starts = [entry for entry in entries if entry[3] == "start"]
        ends = [delivery for _, _, delivery, what in entries if what == "end"]
        deliveries = [delivery for _, _, delivery, _ in starts]
        assert deliveries == sorted(set(deliveries)), f"{job_id}: one delivery ran twice"
        assert set(ends) <= set(deliveries), f"{job_id}: one that never began"
        assert ends.count(deliveries[-1]) == 1, f"{job_id}: the last delivery did not end"
        for (began, worker, delivery, _), (again, *_) in pairwise(starts):
            # Perhaps it had ended already; then the kill came before it was settled.
            assert worker in kills, f"{job_id}: again after delivery {delivery}, without a kill"
            assert began < kills[worker] + KILL_TAKES
            assert kills[worker] < again, f"{job_id}: again before delivery {delivery} was killed"
