"""Timeouts, cancellation and shutdown, lane by lane: what each promises, and no more."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope

from taskflow import App, AsyncTask, Job, JobState, SyncTask, current
from taskflow._worker.stacks import stack_of
from taskflow.errors import JobCancelledError, JobFailedError

from .conftest import RunWorker

pytestmark = pytest.mark.anyio

DEADLINE = 8.0
begun: set[str] = set()
"""Jobs whose body has begun; a job runs, for the store, from its claim on."""
gates: dict[str, threading.Event] = {}
doors: list[anyio.Event] = []


async def until_begun(job: Job[Any]) -> None:
    with anyio.fail_after(DEADLINE):
        while job.id not in begun:
            await anyio.sleep(0.005)


class Quick(AsyncTask[int]):
    async def execute(self) -> int:
        return 1


async def works_on() -> None:
    """The worker goes on with other jobs."""
    assert await (await Quick().dispatch()).result(timeout=DEADLINE) == 1


class Shielded(AsyncTask[str]):
    max_attempts = 1
    steps: int = 0

    async def execute(self) -> str:
        begun.add(current().id)
        with CancelScope(shield=True):
            await doors[-1].wait()
            for _ in range(self.steps):
                await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        return "not cancelled"


class Waits(AsyncTask[None]):
    max_attempts = 1

    async def execute(self) -> None:
        begun.add(current().id)
        await anyio.sleep_forever()


class Swallows(AsyncTask[str]):
    max_attempts = 1

    async def execute(self) -> str:
        begun.add(current().id)
        try:
            await anyio.sleep_forever()
        except BaseException:
            return "a value after the cancellation"
        return ""


class Sleeping(SyncTask[str]):
    max_attempts = 1
    gate: str

    def execute(self) -> str:
        begun.add(current().id)
        gates[self.gate].wait(DEADLINE)
        return "too late"


class Asking(SyncTask[None]):
    max_attempts = 1

    def execute(self) -> None:
        begun.add(current().id)
        while True:
            current().check_cancelled()
            time.sleep(0.005)


class AskingPolitely(SyncTask[str]):
    max_attempts = 1

    def execute(self) -> str:
        begun.add(current().id)
        while not current().is_cancelled:
            time.sleep(0.005)
        return "tidied up"


@pytest.fixture
def gate() -> str:
    name = str(len(gates))
    gates[name] = threading.Event()
    return name


@pytest.fixture
async def door() -> AsyncIterator[anyio.Event]:
    """What shielded bodies wait for; opened at the end of the test at the latest."""
    doors.append(event := anyio.Event())
    yield event
    event.set()


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> str:
    """The one message with that text, as soon as it is there."""
    with anyio.fail_after(DEADLINE):
        while not (found := [one for one in caplog.messages if text in one]):
            await anyio.sleep(0.01)
    (message,) = found
    return message


@pytest.mark.parametrize("task", [Waits(), Asking()])
async def test_timeout_stops_what_listens(app: App[Any], run_worker: RunWorker, task: Any) -> None:
    async with run_worker(app):
        job = await task.options(timeout=0.05).dispatch()
        with pytest.raises(JobFailedError, match="TimeoutError: the attempt took longer than 0.05"):
            await job.result(timeout=DEADLINE)
        await works_on()


@pytest.mark.parametrize("task", [Waits(), Asking()])
async def test_cancel_stops_what_listens(app: App[Any], run_worker: RunWorker, task: Any) -> None:
    async with run_worker(app):
        job = await task.dispatch()
        await until_begun(job)
        await job.cancel()
        with pytest.raises(JobCancelledError):
            await job.result(timeout=DEADLINE)
        await works_on()


async def test_a_value_that_comes_after_the_timeout_is_kept_only_if_it_was_returned(
    app: App[Any], run_worker: RunWorker
) -> None:
    """On the event loop, a body that swallows its cancellation has ended by returning."""
    async with run_worker(app):
        job = await Swallows().options(timeout=0.05).dispatch()
        assert await job.result(timeout=DEADLINE) == "a value after the cancellation"
        await works_on()


async def test_a_shielded_body_stops_later(
    app: App[Any], run_worker: RunWorker, door: anyio.Event
) -> None:
    async with run_worker(app, concurrency=3):
        late = await Shielded().options(timeout=0.05).dispatch()
        cancelled = await Shielded().dispatch()
        for job in (late, cancelled):
            await until_begun(job)
        await cancelled.cancel()
        await anyio.sleep(0.1)  # past the timeout
        await works_on()
        assert (await late.record()).state is JobState.RUNNING
        assert (await cancelled.record()).state is JobState.RUNNING
        door.set()
        with pytest.raises(JobFailedError, match="TimeoutError"):
            await late.result(timeout=DEADLINE)
        with pytest.raises(JobCancelledError):
            await cancelled.result(timeout=DEADLINE)


async def test_a_body_that_ignores_its_cancellation_is_reported_with_its_stack(
    app: App[Any], run_worker: RunWorker, door: anyio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_worker(app, concurrency=2, cancel_grace=0.1):
        job = await Shielded().options(timeout=0.05).dispatch()
        report = await logged(caplog, "ignores its cancellation")
        assert (await job.record()).state is JobState.RUNNING
        door.set()
        with pytest.raises(JobFailedError):
            await job.result(timeout=DEADLINE)
    assert "Shielded" in report
    assert "await doors[-1].wait()" in report


async def test_a_stack_walks_down_to_the_line_that_waits() -> None:
    async def inner() -> None:
        await anyio.sleep_forever()  # this very line

    async def outer() -> None:
        await inner()

    coroutine = outer()
    async with anyio.create_task_group() as task_group:

        async def run() -> None:
            await coroutine

        task_group.start_soon(run)
        await anyio.sleep(0.01)
        found = stack_of(coroutine)
        task_group.cancel_scope.cancel()
    assert "await inner()" in found
    assert "this very line" in found


async def test_a_thread_that_does_not_ask_keeps_slot_and_lease(
    app: App[Any], run_worker: RunWorker, gate: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_worker(app, threads=1, cancel_grace=0.05):
        job = await Sleeping(gate=gate).options(timeout=0.05).dispatch()
        await until_begun(job)
        waiting = await Asking().options(timeout=0.05).dispatch()
        await works_on()
        report = await logged(caplog, "ignores its cancellation in a thread")
        assert "gates[self.gate].wait" in report
        assert (await job.record()).state is JobState.RUNNING
        assert (await waiting.record()).state is not JobState.FAILED  # its slot is not free
        gates[gate].set()
        with pytest.raises(JobFailedError, match="TimeoutError"):
            await job.result(timeout=DEADLINE)  # the value is dropped
        with pytest.raises(JobFailedError, match="TimeoutError"):
            await waiting.result(timeout=DEADLINE)


async def test_cancel_of_a_thread_that_tidies_up(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app):
        job = await AskingPolitely().dispatch()
        await until_begun(job)
        await job.cancel()
        assert await job.result(timeout=DEADLINE) == "tidied up"  # it has completed after all


async def test_shutdown_hands_running_jobs_back(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app, grace=0.05):
        jobs = [await Waits().dispatch(), await Asking().dispatch()]
        for job in jobs:
            await until_begun(job)
    for job in jobs:
        record = await job.record()
        assert (record.state, record.attempt, record.interruptions) == ("available", 0, 1)


async def test_shutdown_leaves_a_deaf_thread_behind(
    app: App[Any], run_worker: RunWorker, gate: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_worker(app, grace=0.05, cancel_grace=0.05) as worker:
        job = await Sleeping(gate=gate).dispatch()
        await until_begun(job)
    gates[gate].set()
    assert worker.exit_code == 1
    assert (await job.record()).state is JobState.RUNNING  # until its lease has run out
    assert "it will run again when its lease has run out" in caplog.text


async def test_shutdown_waits_for_what_ends_within_the_grace(
    app: App[Any], run_worker: RunWorker, gate: str, door: anyio.Event
) -> None:
    async with run_worker(app, grace=DEADLINE) as worker:
        jobs = [await Shielded().dispatch(), await Sleeping(gate=gate).dispatch()]
        for job in jobs:
            await until_begun(job)
        worker.stop()
        await anyio.lowlevel.checkpoint()
        gates[gate].set()
        door.set()
    assert worker.exit_code == 0
    assert [(await job.record()).state for job in jobs] == ["completed", "completed"]


async def test_shutdown_leaves_a_shielded_body_behind_until_it_ends(
    run_worker: RunWorker, tmp_path: Path, door: anyio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """In a program of its own, the process ends; inside another, nothing but waiting is left.

    Bodies that end one shortly after the other: the last outcome comes while others are stored.
    """
    async with App(f"sqlite:///{tmp_path}/jobs.db") as app:
        async with run_worker(app, grace=0.05, cancel_grace=0.05) as worker:
            jobs = [await Shielded(steps=3 * n).dispatch() for n in range(3)]
            for job in jobs:
                await until_begun(job)
            worker.stop()
            await logged(caplog, f"{jobs[-1].id} ignored its cancellation")
            door.set()
        assert worker.exit_code == 1
        reports = [text for text in caplog.messages if "when its lease has run out" in text]
        assert sum("await doors[-1].wait()" in text for text in reports) == 3
        for record in [await job.record() for job in jobs]:  # handed back when they ended
            assert (record.state, record.attempt) == ("available", 0)


async def test_cancelling_run_is_a_shutdown_without_grace(
    app: App[Any], run_worker: RunWorker
) -> None:
    with CancelScope() as scope:
        async with run_worker(app):
            job = await Waits().dispatch()
            await until_begun(job)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert (await job.record()).state is JobState.AVAILABLE


async def test_an_expired_job_that_was_claimed_does_not_start(
    app: App[Any], run_worker: RunWorker
) -> None:
    async with run_worker(app, concurrency=1):
        await Waits().options(timeout=0.3).dispatch()
        late = await Quick().options(expires_in=0.1).dispatch()
        with pytest.raises(JobCancelledError, match="expired"):
            await late.result(timeout=DEADLINE)
