"""What the tests of the SQLite driver are made of."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from taskflow._core.records import (
    MICRO,
    Change,
    Claim,
    Claimed,
    Fetched,
    JobRecord,
    JobSpec,
    Lane,
    Leased,
    Room,
    Settled,
)
from taskflow._core.states import Event
from taskflow.drivers.sqlite import SqliteDriver
from taskflow.drivers.sqlite.clock import SystemClock

_numbers = itertools.count()


class ShiftedClock(SystemClock):
    """The machine's clocks, moved by what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0

    def shift(self, seconds: float) -> None:
        self.offset += round(seconds * MICRO)

    def now(self) -> int:
        return super().now() + self.offset

    def uptime(self) -> int:
        return super().uptime() + self.offset


def spec(job_id: str, **options: Any) -> JobSpec:
    return JobSpec(id=job_id, kind="Job", payload=bytes(range(256)), **options)


async def claim(
    driver: SqliteDriver,
    free: int = 10,
    *,
    ahead: int = 0,
    queues: tuple[str, ...] = ("default",),
    lanes: tuple[Lane, ...] = (Lane.ASYNC,),
    lease: float = 60,
    request_id: str | None = None,
    others: bool = False,
) -> Claimed:
    return await driver.claim(
        Claim(
            queues=queues, rooms={lane: Room(free, ahead) for lane in lanes}, lease=lease,
            request_id=request_id or f"request-{next(_numbers)}", worker_id="worker",
            others=others,
        )
    )  # fmt: skip


async def claim_one(driver: SqliteDriver, **options: Any) -> Leased:
    (job,) = (await claim(driver, 1, **options)).jobs
    return job


async def settle(driver: SqliteDriver, job: Leased, event: Event, **how: Any) -> Settled:
    (reply,) = await driver.settle([Change(token=job.token, event=event, **how)])
    return reply


async def read(driver: SqliteDriver, job_id: str) -> Fetched:
    (found,) = await driver.fetch([job_id])
    assert found is not None
    return found


async def record(driver: SqliteDriver, job_id: str) -> JobRecord:
    return (await read(driver, job_id)).record


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteDriver]:
    driver = SqliteDriver(path, **options)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.aclose()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it looks at knows no event loop
        await anyio.sleep(0.005)


def stall(seconds: float) -> None:
    time.sleep(seconds)


def ids(claimed: Claimed) -> list[str]:
    return [job.token.id for job in claimed.jobs]


def start(program: str, *args: object) -> subprocess.Popen[str]:
    """Run a program in another process; it may use everything of this module."""
    text = f"import sys, anyio\nfrom tests.drivers.sqlite_kit import *\n{program}"
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, args)], stdout=subprocess.PIPE,
        stdin=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
