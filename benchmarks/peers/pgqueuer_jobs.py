"""pgqueuer (tried with 1.6) on asyncpg and uvloop: enqueue of 500 jobs a call; one worker that drains.

BATCH jobs a claim and a write, and twice as many at a time, which is the least it allows. It
deletes done jobs and logs their ends; it keeps no results. From the first start until the worker
has written everything and returned.
"""

import json
import logging
import os
import sys
import time
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

part, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
batch = int(os.environ["BATCH"])


async def store() -> dict[str, Any]:
    """Lists of 500."""
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    began = time.perf_counter()
    for start in range(0, count, 500):
        size = min(500, count - start)
        await queries.enqueue(["noop"] * size, [b""] * size, [0] * size)
    return {"seconds": time.perf_counter() - began}


async def work() -> dict[str, Any]:
    """Until the queue is empty."""
    connection = await asyncpg.connect(url)
    worker = PgQueuer(AsyncpgDriver(connection))
    first = 0.0
    done = 0

    @worker.entrypoint("noop")
    async def noop(job: Job) -> None:  # noqa: ARG001
        nonlocal first, done
        first = first or time.perf_counter()
        done += 1

    await worker.run(
        batch_size=batch, max_concurrent_tasks=2 * batch, mode=QueueExecutionMode.drain
    )
    seconds = time.perf_counter() - first
    connection = await asyncpg.connect(url)
    left = await connection.fetchval("SELECT count(*) FROM pgqueuer")
    if done != count or left:
        raise RuntimeError(f"{done} of {count} jobs ran, {left} are left")
    return {"seconds": seconds, "since": "first start"}


logging.disable(logging.WARNING)
print(json.dumps(uvloop.run(store() if part == "store" else work())), flush=True)
os._exit(0)
