"""The process lane as a dispatcher sees it: results, errors, context, dispatch, hooks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from taskflow import App
from taskflow.errors import JobFailedError

from . import process_tasks as tasks
from .broken_tasks import Unloadable
from .conftest import RunWorker
from .files import appears

pytestmark = pytest.mark.anyio


async def failure(job: Any) -> JobFailedError:
    with pytest.raises(JobFailedError) as caught:
        await job.result(timeout=8)
    return caught.value


async def test_results_and_errors(app: App[Any], run_worker: RunWorker) -> None:
    async with run_worker(app, process_slots=1):
        pid = await (await tasks.Pid().dispatch()).result(timeout=8)
        assert await (await tasks.AsyncPid().dispatch()).result(timeout=8) == pid != os.getpid()
        assert await (await tasks.Prints(size=1 << 20).dispatch()).result(timeout=8) == 1 << 20
        big = await tasks.BigResult(size=700_000).dispatch()
        assert len(await big.result(timeout=8)) == 700_000
        assert "bytes" in str(await failure(await tasks.BigResult(size=1 << 20).dispatch()))
        error = await failure(await tasks.Raises(what="value").dispatch())
        assert (error.type, "KINDS" in error.traceback) == ("ValueError", True)
        job = await tasks.WrongResult().dispatch()
        assert "returned str, declared is int" in str(await failure(job))
        assert (await job.record()).attempt == 1
        assert await (await tasks.Pid().dispatch()).result(timeout=8) == pid


@pytest.mark.parametrize("what", ["keyboard", "exit"])
async def test_a_body_that_raises_to_end_its_process(
    app: App[Any], run_worker: RunWorker, what: str
) -> None:
    kind = tasks.KINDS[what].__name__
    async with run_worker(app, process_slots=1):
        for one in (
            tasks.Raises(what=what), tasks.AsyncRaises(what=what),
            tasks.AsyncRaises(what=what, in_group=True),
        ):  # fmt: skip
            error = await failure(await one.dispatch())
            assert kind in error.type + error.traceback
            job = await tasks.AsyncPid().options(max_attempts=1).dispatch()
            assert await job.result(timeout=8) > 0


async def test_context(app: App[Any], run_worker: RunWorker) -> None:
    before = time.time()
    async with run_worker(app) as worker:
        job = await tasks.Knows().dispatch()
        seen = await job.result(timeout=8)
    assert before - 1 < seen.pop("dispatched_at") < time.time() + 1
    assert before + 55 < seen.pop("deadline") < time.time() + 61
    assert seen == {
        "id": job.id, "kind": "child.Knows", "queue": "default", "attempt": 1, "max_attempts": 3,
        "delivery": 1, "tags": {"colour": "blue"}, "worker_id": worker.worker_id, "state": None,
        "is_cancelled": False,
    }  # fmt: skip


async def test_progress(app: App[Any], run_worker: RunWorker, tmp_path: Path) -> None:
    async with run_worker(app):
        job = await tasks.Progresses(folder=str(tmp_path)).dispatch()
        with anyio.fail_after(8):
            while (progress := (await job.record()).progress) is None:
                await anyio.sleep(0.02)
        assert (progress.fraction, progress.note) == (0.25, "a quarter")
        (tmp_path / "go").touch()
        await job.result(timeout=8)


async def test_dispatch_from_bodies(run_worker: RunWorker) -> None:
    app = App("memory://", max_attempts=7, max_payload=1000, codec=tasks.JsonCodec())
    async with app, run_worker(app, process_slots=1):
        for one in (tasks.Dispatches(), tasks.DispatchesBlocking()):
            ids = await (await one.dispatch()).result(timeout=8)
            words = [await app.handle(id_, tasks.Follows).result(timeout=8) for id_ in ids]
            assert sorted(words) == ["A", "B", "C"]
            record = await app.job(ids[0])
            assert record is not None
            assert record.max_attempts == 7, "the worker's settings hold in its children"
        too_big = await tasks.DispatchesTooBig().dispatch()
        assert await too_big.result(timeout=8) == "PayloadTooLargeError"


async def test_dispatch_after_the_body_is_refused(
    app: App[Any], run_worker: RunWorker, tmp_path: Path
) -> None:
    async with run_worker(app, process_slots=1):
        await (await tasks.DispatchesTooLate(folder=str(tmp_path)).dispatch()).result(timeout=8)
        assert "after the body has ended" in await appears(tmp_path / "refused")
        assert await (await tasks.Pid().dispatch()).result(timeout=8) > 0


async def test_failed_hook_runs_in_the_child(run_worker: RunWorker, tmp_path: Path) -> None:
    async with App("memory://", cancel_grace=1) as app, run_worker(app, process_slots=1):
        job = await tasks.Reports(folder=str(tmp_path)).dispatch()
        assert (await failure(job)).type == "OSError"
        pid = await appears(tmp_path / "pid")
        assert await appears(tmp_path / "failed") == f"{pid} OSError('the disk') {job.id} 1"
        assert str(await (await tasks.Pid().dispatch()).result(timeout=8)) == pid
        (tmp_path / "failed").unlink()
        await failure(await tasks.Reports(folder=str(tmp_path), hangs=True).dispatch())
        await appears(tmp_path / "failed")
        follower = await tasks.Pid().dispatch()
        assert str(await follower.result(timeout=8)) != pid, "the hook that hung was ended"


async def test_failed_hook_after_a_timeout(run_worker: RunWorker, tmp_path: Path) -> None:
    async with App("memory://", cancel_grace=5) as app, run_worker(app, process_slots=1):
        hooked = tasks.Reports(folder=str(tmp_path), sleeps=True).options(timeout=0.5)
        assert (await failure(await hooked.dispatch())).type == "TimeoutError"
        assert "TimeoutError('the attempt took longer" in await appears(tmp_path / "failed")


async def test_module_that_the_child_cannot_import(
    app: App[Any], run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN_TASKS", str(os.getpid()))
    async with run_worker(app, process_slots=1):
        error = await failure(await Unloadable().dispatch())
        assert "cannot import tests.worker.broken_tasks:Unloadable: not in a child" in str(error)
        assert await (await tasks.Pid().dispatch()).result(timeout=8) > 0


SCRIPT = """
import anyio
from taskflow import App, SyncProcessTask, Worker
def make(local):
    class Local(SyncProcessTask[None]):
        def execute(self): ...
    return Local
if {local}:
    kept = make(True)
else:
    class Main(SyncProcessTask[None]):
        def execute(self): ...
async def main():
    async with App("memory://") as app:
        await Worker(app).run()
anyio.run(main, backend={backend!r})
"""


@pytest.mark.parametrize("name", ["__main__:make.<locals>.Local", "__main__:Main"])
def test_tasks_that_no_child_can_import_are_refused_at_start(name: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(local="<locals>" in name, backend="asyncio"))
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=9, check=False
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert f"TaskDefinitionError: {name}: a child process cannot import it: move it" in last


async def test_local_lifespan_fails_process_jobs_and_says_why(run_worker: RunWorker) -> None:
    def local(app: App[Any]) -> Any:
        return tasks.no_lifespan(app)

    async with App("memory://", lifespan=local) as app, run_worker(app):
        job = await tasks.Pid().options(max_attempts=1).dispatch()
        error = await failure(job)
    assert error.type == "ConfigError"
    assert "lifespan" in str(error)
