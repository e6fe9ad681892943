"""The life of process children: recycled, reaped, given what they need, and gone with the worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

from taskflow import App

from ..integration.processes import children_of, is_alive, running_worker, wait_until
from . import process_tasks as tasks
from .conftest import RunWorker
from .files import appears, becomes


async def pids(app: App[Any], count: int) -> list[int]:
    """The children that ran one job after the other."""
    return [await (await tasks.Pid().dispatch(app=app)).result(timeout=8) for _ in range(count)]


@pytest.mark.anyio
async def test_recycled_after_so_many_jobs(app: App[Any], run_worker: RunWorker) -> None:
    others = set(children_of(os.getpid()))  # servers of other tests
    async with run_worker(app, process_slots=1, process_max_jobs=2):
        a, b, c, d, e = await pids(app, 5)
        assert a == b != c == d != e
        assert set(children_of(os.getpid())) - others == {e}


@pytest.mark.anyio
async def test_recycled_above_so_much_memory(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app, process_slots=1, process_max_memory=1 << 40):
        assert len(set(await pids(app, 2))) == 1
    async with run_worker(app, process_slots=1, process_max_memory=1 << 20):
        assert len(set(await pids(app, 2))) == 2


@pytest.mark.slow("starts 20 children")
@pytest.mark.timeout(60)
@pytest.mark.anyio
async def test_nothing_is_left_of_20_children(app: App[Any], run_worker: RunWorker) -> None:
    before, others = open_files(), set(children_of(os.getpid()))
    async with run_worker(app, process_slots=2, process_max_jobs=1):
        await pids(app, 1)
        while_working = open_files()
        jobs = await app.dispatch_many([tasks.Pid() for _ in range(20)])
        assert len({await job.result(timeout=50) for job in jobs}) == 20
        assert set(children_of(os.getpid())) <= others
        assert open_files() == while_working
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow("a child is idle for 15 s: longer than any pool of threads keeps one")
@pytest.mark.timeout(40)
@pytest.mark.anyio
async def test_an_idle_child_lives(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app, process_slots=1):
        (pid,) = await pids(app, 1)
        await anyio.sleep(15)
        assert await pids(app, 1) == [pid]


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_idle_child_that_died_costs_no_attempt(
    app: App[Any], run_worker: RunWorker, number: int
) -> None:
    async with run_worker(app, process_slots=1):
        (pid,) = await pids(app, 1)
        os.kill(pid, number)
        await becomes(lambda: not is_alive(pid), 5, "the child is gone")
        job = await tasks.Pid().options(max_attempts=1).dispatch()
        assert await job.result(timeout=8) != pid
        assert (await job.record()).attempt == 1


@pytest.mark.anyio
async def test_environment(
    app: App[Any], run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCLANE_OPEN", "1")
    monkeypatch.setenv("PROCLANE_SECRET", "2")
    everything = {"PROCLANE_OPEN": "1", "PROCLANE_SECRET": "2"}
    for allowed, expected in (
        (None, everything), (("PROCLANE_OPEN", "PATH"), {"PROCLANE_OPEN": "1"}), (("PATH",), {}),
    ):  # fmt: skip
        async with run_worker(app, process_slots=1, process_env=allowed):
            job = await tasks.environment.dispatch(prefix="PROCLANE_")
            assert await job.result(timeout=8) == expected


@pytest.mark.anyio
async def test_the_working_directory_shadows_nothing(
    app: App[Any], run_worker: RunWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("queue", "socket", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a stranger')")
    monkeypatch.chdir(tmp_path)
    async with run_worker(app, process_slots=1):
        await pids(app, 1)


@pytest.mark.anyio
async def test_lifespan_in_children(
    run_worker: RunWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFESPAN_FOLDER", str(tmp_path))
    app = App("memory://", lifespan=tasks.lifespan, cancel_grace=5)
    async with app, run_worker(app, process_slots=1, process_max_jobs=2):
        seen = [await (await tasks.StatePid().dispatch()).result(timeout=8) for _ in range(3)]
        first, recycled = seen[0][1], seen[2][1]
        assert seen == [[first, first], [first, first], [recycled, recycled]]
        assert (tmp_path / f"left-{first}").exists(), "a recycled child leaves in order"
    found = set(os.listdir(tmp_path))
    everyone = (os.getpid(), first, recycled)
    assert found == {f"{what}-{pid}" for what in ("entered", "left") for pid in everyone}


@pytest.mark.anyio
async def test_a_lifespan_that_fails_in_the_child_fails_no_job(
    run_worker: RunWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFESPAN_FOLDER", str(tmp_path))
    app = App("memory://", lifespan=tasks.lifespan)
    async with app, run_worker(app, process_slots=1):
        monkeypatch.setenv("LIFESPAN_FOLDER", str(tmp_path / "missing"))
        job = await tasks.StatePid().options(max_attempts=1).dispatch()
        with anyio.fail_after(8):
            while (await job.record()).delivery < 2:
                await anyio.sleep(0.02)
        monkeypatch.setenv("LIFESPAN_FOLDER", str(tmp_path))
        await job.result(timeout=8)
        assert (await job.record()).attempt == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_children_die_with_a_killed_worker(tmp_path: Path, backend: str) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    folders = [tmp_path / name for name in ("sync", "async", "idle")]
    for folder in folders:
        folder.mkdir()

    async def dispatch() -> None:
        async with App(url):
            await tasks.HoldsGil(folder=str(folders[0])).dispatch()
            await tasks.AsyncHoldsGil(folder=str(folders[1])).dispatch()
            await tasks.Waits(folder=str(folders[2])).dispatch()

    anyio.run(dispatch)
    flags = ("--process-slots", "3", "--backend", backend)
    with running_worker("tests.worker.process_tasks:app", *flags, log=tmp_path / "log",
                        TASKFLOW_URL=url) as worker:  # fmt: skip
        started = [folder / "started" for folder in folders]
        wait_until(lambda: all(path.exists() for path in started), 8, "all bodies run")
        children = [int(path.read_text()) for path in started]
        assert sorted(children_of(worker.pid)) == sorted(children)
        worker.kill()
        wait_until(lambda: not any(map(is_alive, children)), 2, "the children are gone")


@pytest.mark.anyio
async def test_two_workers_share_a_store(run_worker: RunWorker, tmp_path: Path) -> None:
    async with App(f"sqlite:///{tmp_path}/jobs.db", cancel_grace=0.5) as app:
        async with run_worker(app, process_slots=1):
            job = await tasks.Waits(folder=str(tmp_path)).dispatch()
            pid = int(await appears(tmp_path / "started"))
            (tmp_path / "go").touch()
            assert await job.result(timeout=8) == pid
        assert not is_alive(pid)
