"""Each way in which an attempt can end, through the whole worker."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from taskflow import App, AsyncTask, Discard, JobState, Retry, Snooze, SyncTask, current, task
from taskflow.errors import JobCancelledError, JobFailedError, ResultNotKeptError

from .conftest import RunWorker

pytestmark = pytest.mark.anyio


class Add(AsyncTask[int]):
    a: int
    b: int = 1

    async def execute(self) -> int:
        await anyio.lowlevel.checkpoint()
        return self.a + self.b


class Upper(SyncTask[str]):
    text: str

    def execute(self) -> str:
        return self.text.upper()


@task
async def double(x: int) -> int:
    return 2 * x


@task
def halve(x: int) -> float:
    return x / 2


class Flaky(AsyncTask[int]):
    max_attempts = 5
    retry_delay = 0
    until: int

    async def execute(self) -> int:
        attempt = current().attempt
        if attempt < self.until:
            raise ConnectionError(f"attempt {attempt}")
        return attempt


class Hopeless(AsyncTask[None]):
    max_attempts = 2
    retry_delay = 0

    async def execute(self) -> None:
        raise ValueError("a\0b\ud800")


class Refused(AsyncTask[None]):
    async def execute(self) -> None:
        raise KeyError("no")

    def should_retry(self, error: Exception) -> bool:
        return not isinstance(error, KeyError)


class Steers(AsyncTask[str]):
    retry_delay = 0
    how: str

    async def execute(self) -> str:
        ctx = current()
        if self.how == "discard":
            raise Discard("why not")
        if self.how == "snooze" and ctx.delivery < 3:
            raise Snooze(0)
        if self.how == "retry" and ctx.attempt < 3:
            raise Retry(after=0)
        return f"{ctx.attempt}/{ctx.delivery}"


async def test_results_of_all_forms(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        assert await (await Add(a=2).dispatch()).result(timeout=5) == 3
        assert await (await Upper(text="x").dispatch()).result(timeout=5) == "X"
        assert await (await double(4).dispatch()).result(timeout=5) == 8
        assert await (await halve.dispatch(x=4)).result(timeout=5) == 2.0


async def test_many(app: App[Any], run_worker: RunWorker) -> None:
    jobs = await app.dispatch_many([Add(a=i) for i in range(300)])
    async with run_worker(app):
        assert [await job.result(timeout=5) for job in jobs] == [i + 1 for i in range(300)]


async def test_retry_until_it_works(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        job = await Flaky(until=3).dispatch()
        assert await job.result(timeout=5) == 3
    record = await job.record()
    assert (record.state, record.attempt, record.delivery) == (JobState.COMPLETED, 3, 3)


async def test_attempts_used_up(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        job = await Hopeless().dispatch()
        with pytest.raises(JobFailedError) as caught:
            await job.result(timeout=5)
    assert caught.value.type == "ValueError"
    assert caught.value.reason == "exhausted"
    assert "raise ValueError" in caught.value.traceback
    assert "\0" not in caught.value.message
    assert (await job.record()).attempt == 2


async def test_veto(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        job = await Refused().dispatch()
        with pytest.raises(JobFailedError, match="refused"):
            await job.result(timeout=5)
    assert (await job.record()).attempt == 1


async def test_control_flow(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        discard = await Steers(how="discard").dispatch()
        snooze = await Steers(how="snooze").dispatch()
        retry = await Steers(how="retry").dispatch()
        with pytest.raises(JobFailedError, match="why not"):
            await discard.result(timeout=5)
        assert await snooze.result(timeout=5) == "1/3"
        assert await retry.result(timeout=5) == "3/3"


async def test_cancel_before_and_while_running(app: App[Any], run_worker: RunWorker) -> None:
    before = await Add(a=1).dispatch()
    await before.cancel()
    with pytest.raises(JobCancelledError):
        await before.result(timeout=0)
    async with run_worker(app):
        job = await Sleeps().dispatch()
        while (await job.record()).state is not JobState.RUNNING:
            await anyio.sleep(0.01)
        await job.cancel()
        with pytest.raises(JobCancelledError):
            await job.result(timeout=1)


class Sleeps(AsyncTask[None]):
    async def execute(self) -> None:
        await anyio.sleep_forever()


class Slow(AsyncTask[None]):
    timeout = 0.05
    max_attempts = 1

    async def execute(self) -> None:
        await anyio.sleep_forever()


async def test_timeout(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        with pytest.raises(JobFailedError, match="TimeoutError"):
            await (await Slow().dispatch()).result(timeout=5)


async def test_result_not_kept_and_timeout_of_result(app: App[Any], run_worker: RunWorker) -> None:
    job = await Add(a=1).options(result_ttl=0).dispatch()
    with pytest.raises(TimeoutError):
        await job.result(timeout=0.01)
    async with run_worker(app):
        with pytest.raises(ResultNotKeptError):
            await job.result(timeout=5)


failures: list[str] = []


class Reports(AsyncTask[None]):
    max_attempts = 1
    colour: str

    async def execute(self) -> None:
        raise OSError(self.colour)

    async def failed(self, error: Exception) -> None:
        failures.append(f"{self.colour} {error!r} {current().attempt}")


class ReportsInThread(SyncTask[None]):
    max_attempts = 1

    def execute(self) -> None:
        raise OSError("thread")

    def failed(self, error: Exception) -> None:
        failures.append(f"{error!r}")


async def test_failed_hook(app: App[Any], run_worker: RunWorker) -> None:
    failures.clear()
    async with run_worker(app):
        for job in (await Reports(colour="blue").dispatch(), await ReportsInThread().dispatch()):
            with pytest.raises(JobFailedError):
                await job.result(timeout=5)
    assert sorted(failures) == ["OSError('thread')", "blue OSError('blue') 1"]


class Wrong(AsyncTask[int]):
    async def execute(self) -> int:
        return "text"  # type: ignore[return-value]


async def test_wrong_result_is_final(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        job = await Wrong().dispatch()
        with pytest.raises(JobFailedError, match="returned str, declared is int"):
            await job.result(timeout=5)
    assert (await job.record()).attempt == 1


class Reporting(AsyncTask[None]):
    async def execute(self) -> None:
        await current().progress(0.5, "half way")
        await anyio.sleep_forever()


async def test_progress_is_stored(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        job = await Reporting().dispatch()
        with anyio.fail_after(5):
            while (progress := (await job.record()).progress) is None:
                await anyio.sleep(0.01)
        assert (progress.fraction, progress.note) == (0.5, "half way")
        await job.cancel()
