"""Four processes write one SQLite file as fast as they can: how long does a renewal take?"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from taskflow._core.records import Change, Claim, JobSpec, Lane, Leased, Renewal, Room
from taskflow._core.states import Event
from taskflow.drivers.sqlite import SqliteDriver

from .report import Figure

ROOT = Path(__file__).parents[1]
PROCESSES = 4
SECONDS = 6.0
BATCH = 50


async def _claim(driver: SqliteDriver, name: str, turn: int, room: int) -> list[Leased]:
    request = Claim(
        queues=(name,), rooms={Lane.ASYNC: Room(room)}, lease=60.0,
        request_id=f"{name}-{turn}", worker_id=name,
    )  # fmt: skip
    return (await driver.claim(request)).jobs


async def _write(driver: SqliteDriver, name: str) -> None:
    turn = 0
    while True:
        turn += 1
        specs = [
            JobSpec(id=f"{name}-{turn}-{n}", kind="Noop", payload=b"\x80", queue=name)
            for n in range(BATCH)
        ]  # fmt: skip
        await driver.enqueue(specs)
        jobs = await _claim(driver, name, turn, BATCH)
        await driver.settle([Change(token=job.token, event=Event.COMPLETE) for job in jobs])


async def run_child(path: str, name: str) -> list[float]:
    """What one process measures."""
    driver = SqliteDriver(path)
    await driver.open()
    twin = driver.twin()
    await twin.open()
    await driver.enqueue([JobSpec(id=f"held-{name}", kind="Noop", payload=b"", queue="held")])
    held = await _claim(driver, "held", 0, 1)
    seconds: list[float] = []
    with anyio.move_on_after(SECONDS):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_write, driver, name)
            while True:
                await anyio.sleep(0.02)
                began = time.perf_counter()
                await twin.extend([Renewal(job.token) for job in held], 60.0)
                seconds.append(time.perf_counter() - began)
    with anyio.CancelScope(shield=True):
        await twin.aclose()
        await driver.aclose()
    return seconds


def renewals(backend: str) -> list[Figure]:
    """p95 over all processes."""
    with tempfile.TemporaryDirectory(prefix="taskflow-benchmark-") as folder:
        children = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.renewal", f"{folder}/jobs.db", f"p{n}", backend],
                stdout=subprocess.PIPE, cwd=ROOT,
            )
            for n in range(PROCESSES)
        ]  # fmt: skip
        seconds = [one for child in children for one in json.loads(child.communicate()[0])]
    p95 = statistics.quantiles(seconds, n=20)[-1]
    return [
        Figure(
            name="SQLite, lease renewal", backend=backend, value=p95, unit="s", target=0.5,
            is_bound=True, note=f"p95 of {len(seconds)} while {PROCESSES} processes write; "
            f"median {statistics.median(seconds):.3f} s",
        )
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(anyio.run(run_child, sys.argv[1], sys.argv[2], backend=sys.argv[3])))
