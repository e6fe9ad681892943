"""Bodies in the process lane that crash or do not want to end: one attempt, never more."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from taskflow import App, JobState
from taskflow.errors import JobCancelledError, JobFailedError

from ..integration.processes import is_alive
from . import process_tasks as tasks
from .conftest import RunWorker
from .files import appears, becomes

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app() -> AsyncIterator[App[Any]]:
    """A lease so long that nothing here can be due to its end."""
    async with App("memory://", lease=600, cancel_grace=0.5) as opened:
        yield opened


@pytest.mark.parametrize("how", ["exit", "segfault", "fork"])
async def test_a_crash_costs_one_attempt_at_once(
    app: App[Any], run_worker: RunWorker, tmp_path: Path, how: str
) -> None:
    async with run_worker(app, process_slots=2):
        neighbour = await tasks.Waits(folder=str(tmp_path)).dispatch()
        pid = await appears(tmp_path / "started")
        for one in (tasks.Dies(how=how), tasks.AsyncDies(how=how)):
            job = await one.dispatch()
            assert await job.result(timeout=8) == 2
            record = await job.record()
            assert (record.attempt, record.delivery, record.crashes) == (2, 2, 0)
        (tmp_path / "go").touch()
        assert await neighbour.result(timeout=8) == int(pid)
        assert (await neighbour.record()).attempt == 1


async def test_what_is_said_of_a_crash(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app, process_slots=2):
        for how, words in (("exit", "exit code 3"), ("segfault", "signal 11")):
            job = await tasks.Dies(how=how).options(max_attempts=1).dispatch()
            with pytest.raises(JobFailedError, match=words) as caught:
                await job.result(timeout=8)
            assert caught.value.type == "ProcessDiedError"


@pytest.mark.parametrize("kind", [tasks.HoldsGil, tasks.AsyncHoldsGil])
async def test_c_code_that_holds_the_gil_is_stopped(
    app: App[Any], run_worker: RunWorker, tmp_path: Path, kind: Any
) -> None:
    async with run_worker(app, process_slots=1):
        job = await kind(folder=str(tmp_path)).options(timeout=1.0).dispatch()
        pid = int(await appears(tmp_path / "started"))
        with pytest.raises(JobFailedError, match="longer than 1 s") as caught:
            await job.result(timeout=8)
        assert caught.value.type == "TimeoutError"
        assert not is_alive(pid)
        (tmp_path / "started").unlink()
        job = await kind(folder=str(tmp_path)).dispatch()
        pid = int(await appears(tmp_path / "started"))
        await job.cancel()
        with pytest.raises(JobCancelledError):
            await job.result(timeout=8)
        assert not is_alive(pid)
        assert await (await tasks.Pid().dispatch()).result(timeout=8) != pid


@pytest.mark.parametrize("kind", [tasks.Cleans, tasks.SyncCleans])
async def test_a_body_that_is_stopped_runs_its_finally(
    run_worker: RunWorker, tmp_path: Path, kind: Any
) -> None:
    async with App("memory://", cancel_grace=5) as app, run_worker(app, process_slots=1):
        job = await kind(folder=str(tmp_path)).dispatch()
        await appears(tmp_path / "started")
        await job.cancel()
        with pytest.raises(JobCancelledError):
            await job.result(timeout=8)
        assert (tmp_path / "cleaned").read_text() == "True"


@pytest.mark.parametrize("exits", [True, False])
async def test_grandchildren_go_with_their_child(
    app: App[Any], run_worker: RunWorker, tmp_path: Path, exits: bool
) -> None:
    async with run_worker(app, process_slots=1):
        job = await tasks.Grandchild(folder=str(tmp_path), exits=exits).dispatch()
        pid = int(await appears(tmp_path / "started"))
        if not exits:
            await job.cancel()
        with pytest.raises((JobCancelledError, JobFailedError)):
            await job.result(timeout=8)
        await becomes(lambda: not is_alive(pid), 2, "the grandchild is gone")


@pytest.mark.parametrize(
    "data", [b"hello, hello", b"\0\0\0\x04", b"\xc1tf1\0\0\0\x01\xff", b"\xc1tf1\xff\xff\xff\xff"]
)
async def test_garbage_on_the_line_ends_the_child(
    app: App[Any], run_worker: RunWorker, data: bytes
) -> None:
    async with run_worker(app, process_slots=1):
        pid = await (await tasks.Pid().dispatch()).result(timeout=8)
        job = await tasks.Garbage(data=data).dispatch()
        with pytest.raises(JobFailedError, match="no proper frame") as caught:
            await job.result(timeout=8)
        assert caught.value.type == "BadFrameError"
        assert not is_alive(pid)
        assert await (await tasks.Pid().dispatch()).result(timeout=8) != pid


async def test_shutdown_hands_a_running_body_back(run_worker: RunWorker, tmp_path: Path) -> None:
    async with App("memory://", cancel_grace=5) as app:
        async with run_worker(app, process_slots=1, grace=0) as worker:
            job = await tasks.Cleans(folder=str(tmp_path)).dispatch()
            pid = int(await appears(tmp_path / "started"))
        assert (tmp_path / "cleaned").exists()
        assert not is_alive(pid)
        record = await job.record()
        assert (record.state, record.attempt, worker.exit_code) == (JobState.AVAILABLE, 0, 0)


async def test_shutdown_while_a_child_comes_up(app: App[Any], run_worker: RunWorker) -> None:
    began = time.monotonic()
    async with run_worker(app, process_slots=1, grace=0):
        job = await tasks.Waits(folder="/nowhere").dispatch()
        with anyio.fail_after(8):
            while (await job.record()).state is not JobState.RUNNING:
                await anyio.sleep(0.001)
    record = await job.record()
    assert (record.state, record.attempt) == (JobState.AVAILABLE, 0)
    assert time.monotonic() - began < 8


async def test_shutdown_while_children_do_not_come_up(
    app: App[Any], run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/does/not/exist")
    async with run_worker(app, process_slots=1, grace=0):
        job = await tasks.Pid().dispatch()
        with anyio.fail_after(8):
            while (await job.record()).delivery < 2:
                await anyio.sleep(0.02)
        monkeypatch.undo()
        assert await job.result(timeout=8) != os.getpid()
    assert (await job.record()).attempt == 1
