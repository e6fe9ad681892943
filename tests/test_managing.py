"""``app.jobs``, ``retry``, ``stats``, ``pause``, ``resume`` and ``purge``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from taskflow import App, AsyncTask, JobState, Unique, Worker
from taskflow.errors import (
    ConfigError,
    IllegalTransitionError,
    JobConflictError,
    JobFailedError,
    JobNotFoundError,
)

pytestmark = pytest.mark.anyio


class Works(AsyncTask[int]):
    n: int = 0

    async def execute(self) -> int:
        return self.n


class Fails(AsyncTask[None]):
    max_attempts = 1

    async def execute(self) -> None:
        raise ValueError("no")


@pytest.fixture
async def app() -> AsyncIterator[App[Any]]:
    async with App("memory://", lease=2) as app:
        yield app


async def run(app: App[Any]) -> None:
    """Work until nothing is left."""
    worker = Worker(app)
    async with anyio.create_task_group() as task_group:
        await task_group.start(worker.run)
        with anyio.fail_after(5):
            while any(one.counts.keys() & {"available", "running"} for one in await app.stats()):
                await anyio.sleep(0.01)
        worker.stop()


async def test_jobs_by_state_kind_and_time(app: App[Any]) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    for n in range(3):
        await Works(n=n).options(tags={"n": str(n)}).dispatch()
    await Fails().on_queue("other").dispatch()
    await run(app)
    assert [job.kind for job in (await app.jobs(state="failed")).jobs] == ["Fails"]
    assert len((await app.jobs(kind="Works", state=[JobState.COMPLETED])).jobs) == 3
    assert len((await app.jobs(tags={"n": "1"}, since=before)).jobs) == 1
    assert (await app.jobs(until=before)).jobs == []
    first = await app.jobs(limit=3)
    rest = await app.jobs(limit=3, cursor=first.cursor)
    assert [job.kind for job in (*first.jobs, *rest.jobs)] == ["Fails", "Works", "Works", "Works"]
    assert rest.cursor is None


@pytest.mark.parametrize(
    "filters",
    [{"state": "sleeping"}, {"limit": 0}, {"since": datetime(2020, 1, 1)}],  # noqa: DTZ001
)
async def test_bad_filters(app: App[Any], filters: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(filters))):
        await app.jobs(**filters)


async def test_retry(app: App[Any]) -> None:
    job = await Fails().dispatch()
    with pytest.raises(IllegalTransitionError, match="available"):
        await app.retry(job.id)
    await run(app)
    await app.retry(job.id)
    record = await job.record()
    assert (record.state, record.attempt) == ("available", 0)
    assert record.error is not None
    await run(app)
    with pytest.raises(JobFailedError):
        await job.result(timeout=0)
    with pytest.raises(JobNotFoundError):
        await app.retry("nobody")


async def test_retry_against_a_unique_key(app: App[Any]) -> None:
    job = await Fails().options(unique=Unique("key")).dispatch()
    await run(app)
    await Works().options(unique="key").dispatch()
    with pytest.raises(JobConflictError, match="unique key"):
        await app.retry(job.id)


async def test_pause_resume_purge_and_stats(app: App[Any]) -> None:
    await app.pause("default")
    job = await Works(n=1).dispatch()
    stats = {one.queue: one for one in await app.stats()}
    assert stats["default"].paused
    assert stats["default"].counts == {"available": 1}
    worker = Worker(app)
    async with anyio.create_task_group() as task_group:
        await task_group.start(worker.run)
        with pytest.raises(TimeoutError):
            await job.result(timeout=0.1)
        await app.resume("default")
        assert await job.result(timeout=5) == 1
        worker.stop()
    await Works().delay(60).dispatch()
    assert await app.purge("default") == 1
    assert [one.counts for one in await app.stats()] == [{"completed": 1}]


def test_the_same_from_plain_code() -> None:
    with App("memory://").sync() as app:
        job = app.dispatch(Works(n=1))
        app.pause("default")
        assert app.stats()[0].paused
        app.resume("default")
        assert [one.id for one in app.jobs(kind="Works").jobs] == [job.id]
        app.cancel(job.id)
        app.retry(job.id)
        assert app.purge("default") == 1


async def test_retention_runs_by_itself() -> None:
    async with App("memory://", lease=2, result_ttl=0.1) as app:
        job = await Works().dispatch()
        await run(app)
        assert await app.port.prune(10, 0.0) in {0, 1}
        with anyio.fail_after(5):
            while await app.job(job.id) is not None:
                await app.port.prune(10, 0.0)
                await anyio.sleep(0.02)
