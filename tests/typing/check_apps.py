"""Types of apps, handles, chains, contexts and workers; run by mypy and pyright, never executed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from taskflow import (
    App,
    AsyncTask,
    Backoff,
    Config,
    Conflict,
    Context,
    Discard,
    Job,
    JobRecord,
    JobState,
    Lane,
    Prepared,
    Progress,
    Retry,
    Snooze,
    SyncProcessTask,
    SyncTask,
    Unique,
    Worker,
    current,
    task,
)
from taskflow.abc import Driver
from taskflow.app import SyncApp, SyncJob


class Pool:
    """What a lifespan opens."""


@asynccontextmanager
async def open_pool(app: App[Any]) -> AsyncIterator[Pool]:
    yield Pool()


class Ping(AsyncTask[bool]):
    """Options may be timedeltas, and the result type may be left to a base class."""

    retry_delay = timedelta(seconds=5)
    timeout = timedelta(minutes=1)
    priority = 10
    expires_in = timedelta(hours=1)
    result_ttl = None
    tags = {"team": "web"}
    aliases = ("OldPing",)

    host: str

    async def execute(self) -> bool:
        context = current()
        assert_type(context, Context)
        assert_type(context.id, str)
        assert_type(context.attempt, int)
        assert_type(context.max_attempts, int)
        assert_type(context.queue, str)
        assert_type(context.tags, Mapping[str, str])
        assert_type(context.dispatched_at, datetime)
        assert_type(context.deadline, datetime | None)
        assert_type(context.worker_id, str)
        assert_type(context.is_cancelled, bool)
        await context.progress(0.5, "half way")
        context.check_cancelled()
        if context.attempt == 1:
            raise Snooze(timedelta(seconds=60))
        if context.attempt == 2:
            raise Retry(after=10)
        raise Discard("why")


class Nightly(SyncTask[None]):
    def execute(self) -> None:
        current().progress_nowait(1)
        job = Ping(host="a").dispatch_blocking()
        assert_type(job, Job[bool])


@task(process=True, kind="sum", retry_delay=Backoff(jitter=False), tags={"lane": "process"})
async def total(numbers: list[int], *, start: int = 0) -> int:
    return sum(numbers, start)


def constructing(driver: Driver) -> None:
    App("redis://localhost:6379/0")
    App(Config(lease=30))
    App(driver=driver)
    App("memory://", lease=30, concurrency=5)
    assert_type(App(lifespan=open_pool), App[Pool])
    total.fn([1], start=2)


async def chaining(app: App[Pool]) -> None:
    prepared = Ping(host="a").on_queue("high").delay(timedelta(minutes=1)).retry_after(30)
    assert_type(prepared, Prepared[bool])
    assert_type(
        prepared.options(eta=datetime.now(UTC), timeout=None, result_ttl=None), Prepared[bool]
    )
    unique = Unique("ping-a", (JobState.AVAILABLE,), Conflict.RAISE)
    assert_type(await prepared.options(id="j", unique=unique).dispatch(app=app), Job[bool])
    assert_type(total([1], start=1), Prepared[int])
    assert_type(total([1]).delay(5).dispatch_blocking(), Job[int])


async def number(job: Job[int]) -> int:
    """A handle only gives results, so one that promises more will do."""
    return await job.result(timeout=timedelta(seconds=1))


async def reading(app: App[Pool]) -> None:
    job = await Ping(host="a").dispatch()
    assert_type(job.id, str)
    await number(job)
    record = await job.record()
    assert_type(record, JobRecord)
    assert_type(record.state, JobState)
    assert_type(record.lane, Lane)
    assert_type(record.progress, Progress | None)
    assert_type(record.finished_at, datetime | None)
    assert_type(await app.job(job.id), JobRecord | None)
    await job.cancel()
    await app.cancel(job.id)


async def many(app: App[Pool]) -> None:
    assert_type(await app.dispatch_many([Ping(host="a").delay(1)]), list[Job[bool]])
    assert_type(await app.dispatch_many([total([1]), total([2])]), list[Job[int]])
    assert_type(app.handle("id", Ping), Job[bool])
    assert_type(app.handle("id", total), Job[int])
    assert_type(app.handle("id", "Ping"), Job[Any])


async def joining(app: App[Pool], connection: object) -> None:
    """Any connection passes here; what it is, the driver looks at."""
    assert_type(await Ping(host="a").dispatch(connection=connection), Job[bool])
    delayed = Ping(host="a").delay(1)
    assert_type(await delayed.dispatch(app=app, connection=connection), Job[bool])
    assert_type(await total([1]).dispatch(connection=connection), Job[int])
    assert_type(await app.dispatch_many([total([1])], connection=connection), list[Job[int]])


def blocking(app: App[Pool]) -> None:
    with app.sync() as sync:
        assert_type(sync, SyncApp)
        job = sync.dispatch(Ping(host="a"))
        assert_type(job, SyncJob[bool])
        assert_type(job.result(timeout=5), bool)
        assert_type(job.record(), JobRecord)
        assert_type(sync.dispatch(total([1])), SyncJob[int])
        assert_type(sync.job("id"), JobRecord | None)


async def working(app: App[Pool]) -> None:
    async with app as entered:
        assert_type(entered, App[Pool])
        await Worker(entered, queues=("high", "default"), concurrency=10).run()


class WrongResult(AsyncTask[str]):
    async def execute(self) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return 1


class WrongColour(SyncProcessTask[str]):
    async def execute(self) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return ""


class WrongOption(AsyncTask[str]):
    max_attempts = "5"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    async def execute(self) -> str:
        return ""


async def refused(app: App[Pool]) -> None:
    Ping(host="a").options(prioriti=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Ping(host="a").delay("60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    total([""])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    total([1], 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await app.dispatch_many([total([1])], object())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Ping(host="a").dispatch_blocking(connection=app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await app.dispatch_many([Ping])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = await app.handle("id", Ping).result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    current().id = text  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
