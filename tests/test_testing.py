"""``taskflow.testing`` for users' own tests: nothing is faked, and nothing waits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskflow import App, AsyncTask, JobState, SyncTask, current
from taskflow.testing import VirtualClock, assert_dispatched, dispatched, drain

pytestmark = pytest.mark.anyio


class Mail(AsyncTask[str]):
    max_attempts = 3
    retry_delay = 3600

    to: str
    failures: int = 0

    async def execute(self) -> str:
        if current().attempt <= self.failures:
            raise ConnectionError("no")
        return self.to


class Blocking(SyncTask[None]):
    def execute(self) -> None:
        time.sleep(0.01)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def app(clock: VirtualClock) -> AsyncIterator[App[Any]]:
    async with App("memory://", clock=clock) as app:
        yield app


async def test_drain_runs_what_is_due_and_leaves_the_rest(app: App[Any]) -> None:
    await Mail(to="now").dispatch()
    await Blocking().dispatch()
    await Mail(to="later").delay(3600).dispatch()
    records = await drain(app)
    assert [record.state for record in records] == ["completed", "completed", "scheduled"]


async def test_drain_shifts_time_through_retries_and_delays(
    app: App[Any], clock: VirtualClock
) -> None:
    began = clock.now()
    job = await Mail(to="a", failures=2).delay(86_400).dispatch()
    await drain(app, clock=clock)
    assert await job.result(timeout=0) == "a"
    assert (await job.record()).attempt == 3
    assert clock.now() - began >= (86_400 + 2 * 3600) * 1_000_000


async def test_failures_really_fail(app: App[Any], clock: VirtualClock) -> None:
    await Mail(to="a", failures=9).dispatch()
    (record,) = await drain(app, clock=clock)
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert record.error.type == "ConnectionError"


async def test_assert_dispatched(app: App[Any]) -> None:
    await Mail(to="a").dispatch()
    await Mail(to="b").dispatch()
    assert [mail.to for mail in await dispatched(app, Mail)] == ["a", "b"]
    (found,) = await assert_dispatched(app, Mail, to="a", times=1)
    assert found == Mail(to="a")
    with pytest.raises(AssertionError, match=r"Mail\(to='c'\) was dispatched 0 time.*to='a'"):
        await assert_dispatched(app, Mail, to="c")
    with pytest.raises(AssertionError, match="expected 3"):
        await assert_dispatched(app, Mail, times=3)
