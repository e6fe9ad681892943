"""Opening, closing and finding apps; dispatch from every kind of place; ids and unique keys."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal

from taskflow import App, AsyncTask, Conflict, Job, JobState, Prepared, SyncTask, Unique, Worker
from taskflow.errors import (
    JobCancelledError,
    JobConflictError,
    NoAppError,
    PayloadError,
    UsageError,
)


class Doubles(AsyncTask[int]):
    n: int

    async def execute(self) -> int:
        return 2 * self.n


class Spawns(SyncTask[str]):
    n: int

    def execute(self) -> str:
        return Doubles(n=self.n).dispatch_blocking().id


@pytest.fixture
async def app() -> AsyncIterator[App[Any]]:
    async with App("memory://", lease=2) as app:
        yield app


async def work_until(app: App[Any], done: Callable[[], Any]) -> None:
    """Run a worker until ``done()`` has come back."""
    worker = Worker(app)
    async with anyio.create_task_group() as group:
        await group.start(worker.run)
        with anyio.fail_after(5):
            await done()
        worker.stop()


# ---- opening and closing


@pytest.mark.anyio
async def test_an_app_may_be_opened_again() -> None:
    app = App("memory://again")
    keeper = App("memory://again")
    async with keeper:
        async with app:
            job = await Doubles(n=1).dispatch(app=app)
        with pytest.raises(NoAppError, match="not open"):
            await Doubles(n=2).dispatch(app=app)
        with pytest.raises(NoAppError, match="not open"):
            await job.result(timeout=0)
        async with app:
            assert (await job.record()).state is JobState.AVAILABLE


def test_an_app_may_be_opened_again_on_another_loop() -> None:
    app = App("memory://")

    async def use() -> str:
        async with app:
            return (await Doubles(n=1).dispatch()).id

    assert len({anyio.run(use, backend=backend) for backend in ("asyncio", "trio", "asyncio")}) == 3


@pytest.mark.anyio
async def test_entering_an_open_app_is_counted(app: App[Any]) -> None:
    async with app, app:
        await Doubles(n=1).dispatch()
    await Doubles(n=2).dispatch()
    assert len((await app.jobs()).jobs) == 2


@pytest.mark.anyio
async def test_two_tasks_may_enter_at_once_and_leave_in_any_order() -> None:
    app = App("memory://")
    second_is_in, first_left = anyio.Event(), anyio.Event()

    async def first() -> None:
        async with app:
            await second_is_in.wait()
            await Doubles(n=1).dispatch()
        first_left.set()

    async def second() -> None:
        async with app:
            second_is_in.set()
            await first_left.wait()
            assert len((await app.jobs()).jobs) == 1  # still open, and the same store

    async with anyio.create_task_group() as group:
        group.start_soon(second)
        group.start_soon(first)
    assert app.loop is None


@pytest.mark.anyio
async def test_who_waits_for_an_opening_that_fails_tries_for_itself(tmp_path: Any) -> None:
    folder = tmp_path / "later"
    app, failed = App(f"sqlite:///{folder}/jobs.db"), []

    async def enter() -> None:
        try:
            async with app:
                pass
        except Exception as exc:
            failed.append(type(exc).__name__)
            folder.mkdir(exist_ok=True)

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
        group.start_soon(enter)
    assert failed == ["StoreRefusedError"]


@pytest.mark.anyio
async def test_an_open_app_cannot_be_entered_on_another_loop(app: App[Any]) -> None:
    async def enter() -> None:
        async with app:
            pass

    def other_loop() -> None:
        anyio.run(enter)

    with pytest.raises(NoAppError, match="another event loop"):
        await anyio.to_thread.run_sync(other_loop)
    await Doubles(n=1).dispatch()


# ---- finding the app


@pytest.mark.anyio
async def test_of_two_apps_the_one_of_the_context_is_meant() -> None:
    async with App("memory://") as one:
        async with App("memory://") as two:
            first = await Doubles(n=1).dispatch()
            second = await Doubles(n=2).dispatch(app=one)
            assert await two.job(first.id) is not None
            assert await one.job(second.id) is not None
        third = await Doubles(n=3).dispatch()  # two is closed and never found
        assert await one.job(third.id) is not None


@pytest.mark.anyio
async def test_without_a_context_two_apps_are_an_error_that_names_the_remedy() -> None:
    raised: list[BaseException] = []
    opened, asked = anyio.Event(), anyio.Event()

    async def stranger() -> None:
        await opened.wait()
        with pytest.raises(NoAppError, match=r"dispatch\(app=\.\.\.\)") as caught:
            await Doubles(n=1).dispatch()
        raised.append(caught.value)
        asked.set()

    async with anyio.create_task_group() as group:
        group.start_soon(stranger)  # its context knows neither
        await anyio.wait_all_tasks_blocked()
        async with App("memory://"), App("memory://"):
            opened.set()
            await asked.wait()
    assert len(raised) == 1


@pytest.mark.anyio
async def test_with_no_app_open_the_error_says_so() -> None:
    with pytest.raises(NoAppError, match="no app is open"):
        await Doubles(n=1).dispatch()


# ---- threads


@pytest.mark.anyio
async def test_a_body_in_a_thread_dispatches(app: App[Any]) -> None:
    spawner = await Spawns(n=21).dispatch()
    results: list[int] = []

    async def done() -> None:
        job = app.handle(await spawner.result(), Doubles)
        results.append(await job.result())

    await work_until(app, done)
    assert results == [42]


@pytest.mark.anyio
@pytest.mark.parametrize("keeps_context", [True, False])
async def test_a_worker_thread_of_anyio_finds_the_app(app: App[Any], keeps_context: bool) -> None:
    def handler() -> Job[int]:
        return Doubles(n=1).dispatch_blocking()

    context = contextvars.copy_context() if keeps_context else contextvars.Context()
    job = await anyio.to_thread.run_sync(context.run, handler)
    assert await app.job(job.id) is not None


@pytest.mark.anyio
async def test_a_foreign_thread_needs_an_app_to_be_named(app: App[Any]) -> None:
    jobs: list[Job[int]] = []
    errors: list[Exception] = []
    ended = threading.Event()

    def foreign() -> None:
        try:
            Doubles(n=1).dispatch_blocking()
        except NoAppError as exc:
            errors.append(exc)
        jobs.append(Doubles(n=2).dispatch_blocking(app=app))
        ended.set()

    threading.Thread(target=foreign, daemon=True).start()
    assert await anyio.to_thread.run_sync(ended.wait, 5)
    assert "app.sync()" in str(errors[0])
    assert await app.job(jobs[0].id) is not None


@pytest.mark.anyio
async def test_blocking_dispatch_on_the_loop_is_refused(app: App[Any]) -> None:
    with pytest.raises(NoAppError, match=r"await task\.dispatch\(\)"):
        Doubles(n=1).dispatch_blocking()
    assert (await app.jobs()).jobs == []


# ---- plain code


@contextmanager
def worker_thread(url: str, backend: str) -> Iterator[None]:
    """A worker on an event loop in a thread of its own."""
    app = App(url, lease=2)
    with start_blocking_portal(backend) as portal, portal.wrap_async_context_manager(app):
        worker = Worker(app)
        running, _ = portal.start_task(worker.run)
        try:
            yield
        finally:
            portal.call(worker.stop)
            running.result(10)


@pytest.mark.parametrize(("mine", "workers"), [("asyncio", "trio"), ("trio", "asyncio")])
def test_plain_code_dispatches_and_waits(mine: str, workers: str) -> None:
    url = f"memory://plain-{mine}"
    with App(url).sync(backend=mine) as sync:
        job = sync.dispatch(Doubles(n=4))
        many = sync.dispatch_many([Doubles(n=n) for n in range(3)])
        later = sync.dispatch(Doubles(n=0).delay(3600))
        assert job.record().state is JobState.AVAILABLE
        with pytest.raises(TimeoutError):
            job.result(timeout=0)
        with worker_thread(url, workers):
            assert job.result(timeout=5) == 8
            assert [one.result(timeout=5) for one in many] == [0, 2, 4]
        later.cancel()
        with pytest.raises(JobCancelledError):
            later.result()
        assert sync.job("nobody") is None


def test_plain_code_may_open_its_app_again() -> None:
    app = App("memory://")
    for _ in range(2):
        with app.sync() as sync:
            assert sync.dispatch(Doubles(n=1)).record().state is JobState.AVAILABLE
    assert app.loop is None


# ---- ids, unique keys, order


@pytest.mark.anyio
async def test_the_same_id_and_content_is_the_same_job(app: App[Any]) -> None:
    first = await Doubles(n=1).options(id="one").dispatch()
    again = await Doubles(n=1).options(id="one").dispatch()
    assert first.id == again.id == "one"
    await work_until(app, first.result)
    assert (await Doubles(n=1).options(id="one").dispatch()).id == "one"
    assert await again.result(timeout=0) == 2
    assert len((await app.jobs()).jobs) == 1


@pytest.mark.anyio
async def test_the_same_id_with_other_content_is_a_conflict(app: App[Any]) -> None:
    await Doubles(n=1).options(id="one").dispatch()
    for other in (Doubles(n=2), Spawns(n=1), Doubles(n=1).on_queue("other")):
        with pytest.raises(JobConflictError, match="one"):
            await other.options(id="one").dispatch()
    assert [job.kind for job in (await app.jobs()).jobs] == ["Doubles"]


@pytest.mark.anyio
async def test_a_conflict_does_not_touch_who_shares_the_call(app: App[Any]) -> None:
    await Doubles(n=1).options(id="one").dispatch()
    stored: list[str] = []
    conflicts: list[str] = []

    async def dispatch(n: int, job_id: str) -> None:
        try:
            stored.append((await Doubles(n=n).options(id=job_id).dispatch()).id)
        except JobConflictError as exc:
            conflicts.append(str(exc))

    async with anyio.create_task_group() as group:
        for n, job_id in enumerate(("two", "three", "one", "four")):
            group.start_soon(dispatch, n, job_id)
    assert sorted(stored) == ["four", "three", "two"]
    assert len(conflicts) == 1


@pytest.mark.anyio
async def test_unique_keep_raise_replace(app: App[Any]) -> None:
    first = await Doubles(n=1).options(unique="key").dispatch()
    kept = await Doubles(n=2).options(unique="key").dispatch()
    assert kept.id == first.id
    with pytest.raises(JobConflictError, match="key") as caught:
        await Doubles(n=3).options(unique=Unique("key", on_conflict=Conflict.RAISE)).dispatch()
    assert first.id in str(caught.value)
    replacing = Unique("key", on_conflict=Conflict.REPLACE)
    new = await Doubles(n=4).options(unique=replacing).dispatch()
    assert new.id != first.id
    with pytest.raises(JobCancelledError, match="replaced"):
        await first.result(timeout=0)
    await work_until(app, new.result)
    free = await Doubles(n=5).options(unique="key").dispatch()  # a final job holds no key
    assert free.id not in {first.id, new.id}


@pytest.mark.anyio
async def test_dispatch_many_keeps_the_order_over_several_batches(app: App[Any]) -> None:
    count = app.port.driver.facts.max_batch + 10
    tasks = [Doubles(n=n).options(id=f"job-{n}") for n in range(count)]
    jobs = await app.dispatch_many(tasks)
    assert [job.id for job in jobs] == [f"job-{n}" for n in range(count)]
    page = await app.jobs(limit=20)  # the latest accepted first
    assert [job.id for job in page.jobs] == [f"job-{count - 1 - n}" for n in range(20)]


@pytest.mark.anyio
async def test_dispatch_many_stores_nothing_when_a_payload_is_wrong(app: App[Any]) -> None:
    wrong = Doubles(n="text")  # type: ignore[arg-type]
    with pytest.raises(PayloadError):
        await app.dispatch_many([Doubles(n=1), wrong])
    contradictory: Prepared[int] = (
        Doubles(n=1).options(id="x").delay(1).options(eta=datetime.now(UTC))
    )
    with pytest.raises(UsageError):
        await app.dispatch_many([Doubles(n=1).delay(0), contradictory])
    assert (await app.jobs()).jobs == []
