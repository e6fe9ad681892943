"""Claiming ahead: while short jobs run the next ones are fetched, and long jobs are not hoarded."""

from __future__ import annotations

import anyio
import pytest

from taskflow import App, AsyncTask, JobState, events

from .conftest import RunWorker

pytestmark = pytest.mark.anyio

JOBS = 2000


class Short(AsyncTask[None]):
    async def execute(self) -> None:
        await anyio.sleep(0.001)


class Held(AsyncTask[None]):
    async def execute(self) -> None:
        await anyio.sleep_forever()


class Watch:
    """How many jobs had been claimed and had not begun when each claim came."""

    def __init__(self) -> None:
        self.waiting = 0
        self.begun = 0
        self.before_claims: list[int] = []
        self.done = anyio.Event()

    def handle(self, event: events.TaskflowEvent) -> None:
        if isinstance(event, events.JobsClaimed):
            self.before_claims.append(self.waiting)
            self.waiting += len(event.job_ids)
        elif isinstance(event, events.JobStarted):
            self.waiting -= 1
            self.begun += 1
            if self.begun == JOBS:
                self.done.set()
        elif isinstance(event, events.JobReleased):
            self.waiting -= 1


async def test_next_jobs_are_claimed_while_others_still_wait(run_worker: RunWorker) -> None:
    watch = Watch()
    async with App("memory://", instrument=watch, concurrency=10) as app:
        await app.dispatch_many([Short() for _ in range(JOBS)])
        with anyio.fail_after(60):
            async with run_worker(app):
                await watch.done.wait()
    early = [waiting for waiting in watch.before_claims if waiting > 0]
    assert len(early) >= 5
    assert watch.waiting == 0


async def test_long_jobs_are_claimed_for_free_slots_only(run_worker: RunWorker) -> None:
    watch = Watch()
    async with App("memory://", instrument=watch, concurrency=4) as app:
        await app.dispatch_many([Short() for _ in range(JOBS)])
        await app.dispatch_many([Held() for _ in range(40)])
        with anyio.fail_after(60):
            async with run_worker(app, grace=0.0):
                while watch.begun < JOBS + 4 or watch.waiting:
                    await anyio.sleep(0.01)
                counts = (await app.stats())[0].counts
                assert counts[JobState.RUNNING] == 4
