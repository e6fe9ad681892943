"""One part of a measurement on a store, in a process of its own.

``python -m benchmarks.jobs store|work|callers|bare URL COUNT BACKEND`` prints what it found as
one line of JSON. A rate counts only when all jobs are done.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from functools import partial
from typing import Any

import anyio

from taskflow import App, Worker
from taskflow._core.records import Change, Claim, Lane, Room
from taskflow._core.states import Event, JobState
from taskflow.config import Config
from taskflow.drivers import driver_for
from taskflow.drivers.postgres import PostgresDriver

from .tasks import Counted, Noop, count

CONCURRENCY = 100
AT_ONCE = 500
CALLERS = 100


async def store(url: str, number: int) -> dict[str, Any]:
    """Store jobs, 500 a call, one call after another."""
    await prepare(url)
    async with App(url) as app:
        await app.stats()  # connects
        began = time.perf_counter()
        for start in range(0, number, AT_ONCE):
            await app.dispatch_many([Counted() for _ in range(min(AT_ONCE, number - start))])
        return {"seconds": time.perf_counter() - began}


async def prepare(url: str) -> None:
    """Make the tables where that is a step of its own."""
    driver = driver_for(Config(url=url))
    if isinstance(driver, PostgresDriver):
        await driver.migrate()


async def work(url: str, number: int) -> dict[str, Any]:
    """Run them all: from the first start until the last end is stored, leases and results on."""
    async with App(url, concurrency=CONCURRENCY) as app:
        seconds = await _work_off(app, number)
        done = await _done(app)
        if done != number:
            raise RuntimeError(f"{done} of {number} jobs were completed")
        return {"seconds": seconds, "since": "first start"}


async def _work_off(app: App[Any], number: int) -> float:
    worker = Worker(app)
    gc.collect()
    async with anyio.create_task_group() as task_group:
        await task_group.start(worker.run)
        while count.started < number:
            await anyio.sleep(0.005)
        while await _done(app) < number:
            await anyio.sleep(0.005)
        seconds = time.perf_counter() - count.first
        worker.stop()
    return seconds


async def _done(app: App[Any]) -> int:
    return sum(queue.counts.get(JobState.COMPLETED, 0) for queue in await app.stats())


async def callers(url: str, number: int) -> dict[str, Any]:
    """``dispatch()`` by one caller after the other, and by a hundred at the same time."""
    await prepare(url)
    async with App(url) as app:
        await Noop().dispatch(app=app)

        async def call(times: int) -> None:
            for _ in range(times):
                await Noop().dispatch(app=app)

        began = time.perf_counter()
        await call(number)
        alone = (time.perf_counter() - began) / number
        began = time.perf_counter()
        async with anyio.create_task_group() as task_group:
            for _ in range(CALLERS):
                task_group.start_soon(call, number // 4)
        together = (time.perf_counter() - began) / (number // 4 * CALLERS)
        return {"alone": alone, "together": together}


async def bare(url: str, number: int) -> dict[str, Any]:
    """The floor: stored jobs are claimed and settled, a hundred a call, without a worker."""
    async with App(url) as app:
        driver, done = app.port.driver, 0
        began = time.perf_counter()
        while done < number:
            request = Claim(
                queues=("default",), rooms={Lane.ASYNC: Room(CONCURRENCY)}, lease=60.0,
                request_id=f"request-{done}", worker_id="floor",
            )  # fmt: skip
            jobs = (await driver.claim(request)).jobs
            if not jobs:
                raise RuntimeError(f"{done} of {number} jobs were there")
            changes = [Change(token=j.token, event=Event.COMPLETE, result=b"\xc0") for j in jobs]
            await driver.settle(changes)
            done += len(jobs)
        return {"seconds": time.perf_counter() - began}


PARTS = {"store": store, "work": work, "callers": callers, "bare": bare}


def main(part: str, url: str, number: str, backend: str) -> None:
    """Run the part and print what it found."""
    logging.disable(logging.WARNING)
    print(json.dumps(anyio.run(partial(PARTS[part], url, int(number)), backend=backend)))


if __name__ == "__main__":
    main(*sys.argv[1:])
