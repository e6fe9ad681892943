"""How soon a job starts on an idle worker, what idling costs, and what a process child adds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import anyio

from taskflow import App, Worker
from taskflow.events import JobFinished, TaskflowEvent

from .report import Figure
from .tasks import Clocked, InChild

ROOT = Path(__file__).parents[1]
IDLE_SECONDS = 8.0
JOBS = 60


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _starts(url: str) -> list[float]:
    delays = []
    async with App(url) as app:
        for _ in range(JOBS):
            await anyio.sleep(0.05)
            began = time.monotonic()
            job = await Clocked().dispatch(app=app)
            delays.append(await job.result(timeout=10) - began)
    return delays


def watch_idle(url: str, backend: str) -> tuple[float, list[float]]:
    """A worker in a process of its own: its share of a core, and seconds from dispatch to start."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "taskflow", "run", "worker", "benchmarks.tasks:app",
         "--backend", backend],
        cwd=ROOT, env={**os.environ, "BENCHMARK_URL": url}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        anyio.run(_starts, url, backend=backend)  # warm
        before = _cpu_seconds(worker.pid)
        time.sleep(IDLE_SECONDS)
        share = (_cpu_seconds(worker.pid) - before) / IDLE_SECONDS
        return share, anyio.run(_starts, url, backend=backend)
    finally:
        worker.terminate()
        worker.wait(30)


def idle_figures(
    name: str, backend: str, found: tuple[float, list[float]], target: float
) -> list[Figure]:
    """Dispatch to start on an idle worker, at most ``target`` ms, and its use of the CPU."""
    share, delays = found
    return [
        Figure(
            name=f"{name}, dispatch to start", backend=backend,
            value=1000 * statistics.median(delays), unit="ms", target=target, is_bound=True,
            note=f"median of {len(delays)}; worst {1000 * max(delays):.1f} ms; two processes",
        ),
        Figure(
            name=f"{name}, idle worker", backend=backend, value=100 * share, unit="% of a core",
            target=2, is_bound=True, note=f"over {IDLE_SECONDS:g} s",
        ),
    ]  # fmt: skip


def idle(backend: str) -> list[Figure]:
    """On SQLite."""
    with tempfile.TemporaryDirectory(prefix="taskflow-benchmark-") as folder:
        found = watch_idle(f"sqlite:///{folder}/jobs.db", backend)
    return idle_figures("SQLite", backend, found, 20)


class _Durations:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def handle(self, event: TaskflowEvent) -> None:
        if isinstance(event, JobFinished):
            self.seconds.append(event.seconds)


async def _in_child(seen: _Durations) -> None:
    async with App("memory://", instrument=seen) as app:
        worker = Worker(app, process_slots=1, concurrency=1)
        async with anyio.create_task_group() as task_group:
            await task_group.start(worker.run)
            for _ in range(300):
                await (await InChild().dispatch()).result(timeout=30)
            worker.stop()


def child(backend: str) -> list[Figure]:
    """From the start of a no-op body in a warm child until its end is stored."""
    seen = _Durations()
    anyio.run(partial(_in_child, seen), backend=backend)
    return [
        Figure(
            name="warm process child", backend=backend,
            value=1000 * statistics.median(seen.seconds[20:]), unit="ms", target=1, is_bound=True,
            note="median overhead of a no-op job, its settle included",
        )
    ]  # fmt: skip
