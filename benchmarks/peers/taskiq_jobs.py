"""taskiq (tried with 0.13, taskiq-redis 1.2): uvloop and hiredis, 100 tasks at a time, results kept.

BROKER=stream acknowledges a message after its result was stored, 100 messages a read; BROKER=list
loses what runs when a worker dies. There is no call for many: a hundred callers store the jobs.
From the first start until the last result is stored and nothing is unacknowledged.
"""

import asyncio
import json
import logging
import os
import sys
import time
from typing import Any

import uvloop
from redis.asyncio import Redis
from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

part, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
is_stream = os.environ["BROKER"] == "stream"
kept: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(url, result_ex_time=86_400)
made = RedisStreamBroker(url) if is_stream else ListQueueBroker(url)
broker = made.with_result_backend(kept)


class Ends(TaskiqMiddleware):
    """Counts results that were stored."""

    first = 0.0
    many = 0

    def post_save(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:  # noqa: ARG002
        """One more."""
        if result.is_err:
            raise RuntimeError(f"{result.error}")
        self.many += 1


ends = Ends()


@broker.task(task_name="noop")
async def noop() -> None:
    """Note when the first one started."""
    if not Ends.first:
        Ends.first = time.perf_counter()


async def store() -> dict[str, Any]:
    """A hundred callers, each one job after another."""
    await broker.startup()  # makes the consumer group, which sees only what comes later
    left = iter(range(count))

    async def call() -> None:
        for _ in left:
            await noop.kiq()

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(100)))
    seconds = time.perf_counter() - began
    await broker.shutdown()
    return {"seconds": seconds}


async def work() -> dict[str, Any]:
    """One receiver, until all are done."""
    broker.add_middlewares(ends)
    broker.is_worker_process = True
    receiver = asyncio.create_task(run_receiver_task(broker, max_async_tasks=100, run_startup=True))
    async with Redis.from_url(url) as redis:
        while ends.many < count or (
            is_stream and (await redis.xpending("taskiq", "taskiq"))["pending"]
        ):
            if receiver.done():
                receiver.result()
            await asyncio.sleep(0.005)
        seconds = time.perf_counter() - Ends.first
    return {"seconds": seconds, "since": "first start"}


logging.disable(logging.WARNING)
print(json.dumps(uvloop.run(store() if part == "store" else work())), flush=True)
os._exit(0)  # its receiver is not made to be stopped
