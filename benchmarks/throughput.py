"""No-op jobs through one worker of 100 slots, against the floors."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from taskflow import App, Worker
from taskflow._core.states import JobState

from . import floors
from .report import Figure
from .tasks import Noop

CONCURRENCY = 100
JOBS = 20_000
ROUNDS = 5


async def _work_off(url: str, count: int) -> float:
    """Jobs a second, from the worker being ready until everything is settled."""
    async with App(url, concurrency=CONCURRENCY) as app:
        for _ in range(0, count, 500):
            jobs = await app.dispatch_many([Noop() for _ in range(500)])
        worker = Worker(app)
        gc.collect()
        gc.freeze()  # the floor has no stored jobs for the collector to walk over either
        async with anyio.create_task_group() as task_group:
            await task_group.start(worker.run)
            began = time.perf_counter()
            await _until_done(app, [job.id for job in jobs])
            seconds = time.perf_counter() - began
            worker.stop()
        gc.unfreeze()
        await _check_all_done(app, count)
        return count / seconds


async def _check_all_done(app: App[Any], count: int) -> None:
    """A rate counts only when nothing was left behind."""
    done = sum(queue.counts.get(JobState.COMPLETED, 0) for queue in await app.stats())
    if done != count:
        raise RuntimeError(f"{done} of {count} jobs were completed")


async def _until_done(app: App[Any], last: list[str]) -> None:
    """The last ones are settled; looked at seldom, because looking costs, too."""
    for start in (len(last) - 1, 0):
        while True:
            found = await app.port.fetch(last[start:])
            if all(one is not None and one.record.finished_at is not None for one in found):
                break
            await anyio.sleep(0.003)


def memory(backend: str) -> list[Figure]:
    """The memory driver against slot task, cancel scope and decoding; the median of the rounds."""
    ratios = []
    for _ in range(ROUNDS):
        floor = anyio.run(floors.slots, JOBS, CONCURRENCY, backend=backend)
        rate = anyio.run(_work_off, "memory://", JOBS, backend=backend)
        ratios.append((rate / floor, rate, floor))
    ratio, rate, floor = sorted(ratios)[ROUNDS // 2]
    return [
        Figure(
            name="memory, no-op jobs", backend=backend, value=100 * ratio, unit="%",
            target=30 if backend == "asyncio" else 50,
            note=f"{rate:,.0f} jobs/s against the slot floor's {floor:,.0f};"
            " stored jobs kept out of the garbage collector",
        )
    ]  # fmt: skip


def sqlite(backend: str) -> list[Figure]:
    """SQLite against bare transactions of the same statements; the median of the rounds."""
    found = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="taskflow-benchmark-") as name:
            folder = Path(name)
            batched = floors.transactions(folder, JOBS, 100)
            single = floors.transactions(folder, 1_000, 1)
            rate = anyio.run(_work_off, f"sqlite:///{folder}/jobs.db", JOBS, backend=backend)
            found.append((rate / batched, rate, batched, single))
    ratio, rate, batched, _ = sorted(found)[ROUNDS // 2]
    many, rate_of, single = sorted((r / s, r, s) for _, r, _, s in found)[ROUNDS // 2]
    return [
        Figure(
            name="SQLite, no-op jobs", backend=backend, value=100 * ratio, unit="%", target=50,
            note=f"{rate:,.0f} jobs/s against {batched:,.0f} in bare transactions of 100",
        ),
        Figure(
            name="SQLite, batching", backend=backend, value=many, unit="x", target=10,
            note=f"{rate_of:,.0f} jobs/s against {single:,.0f} with one transaction a job",
        ),
    ]  # fmt: skip
