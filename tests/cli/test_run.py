"""``taskflow run`` as people run it: the demo, several workers, the README's quick start."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..integration.processes import (
    ROOT,
    children_of,
    environment,
    is_alive,
    running_worker,
    terminate,
    wait_until,
)
from .commands import JOBS, taskflow

pytestmark = pytest.mark.timeout(90)

STALLED = """\
import time
from taskflow import App, AsyncTask

app = App("sqlite:///jobs.db", lease=2, max_stall=0.5)


class Stall(AsyncTask[None]):
    seconds: float

    async def execute(self) -> None:
        time.sleep(self.seconds)
"""

SEND = """\
import anyio
from jobs import Stall, app


async def main() -> None:
    async with app:
        await Stall(seconds={seconds}).dispatch()


anyio.run(main)
"""


def run_command(command: list[str], folder: Path) -> str:
    """What a command in this folder prints."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def ready_workers(log: Path) -> int:
    return log.read_text().count(" is ready")


@pytest.mark.slow("runs twenty jobs in three lanes")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_demo(backend: str, tmp_path: Path) -> None:
    done = taskflow("run", "demo", "--backend", backend, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"one worker on {backend}" in done.stdout
    assert "completed" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow("starts three workers")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_killed_worker_is_started_again(backend: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    log = tmp_path / "log"
    flags = ("--processes", "2", "--backend", backend)
    with running_worker("jobs:app", *flags, log=log) as supervisor:
        wait_until(lambda: ready_workers(log) == 2, 30, "two workers are ready")
        first = children_of(supervisor.pid)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: ready_workers(log) == 3, 30, "a third worker is ready")
        second = children_of(supervisor.pid)
        assert len(second) == 2
        assert first[1] in second
        assert terminate(supervisor) == 0
        assert not any(map(is_alive, {*first, *second}))
    text = log.read_text()
    assert f"ended with {-signal.SIGKILL}; starting it again" in text
    assert "Traceback" not in text


@pytest.mark.slow("starts two workers")
def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    log = tmp_path / "log"
    with running_worker("jobs:app", "--processes", "2", log=log) as supervisor:
        wait_until(lambda: ready_workers(log) == 2, 30, "two workers are ready")
        workers = children_of(supervisor.pid)
        supervisor.kill()
        wait_until(lambda: not any(map(is_alive, workers)), 30, "the workers are gone")


@pytest.mark.slow("starts workers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_worker_says_what_it_is_and_ends_on_a_signal(
    number: signal.Signals, backend: str, tmp_path: Path
) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    log = tmp_path / "log"
    with running_worker("jobs:app", "--backend", backend, log=log, TASKFLOW_LEASE="9") as worker:
        wait_until(lambda: "tasks   hello" in log.read_text(), 30, "the banner")
        worker.send_signal(number)
        assert worker.wait(30) == 0
    text = log.read_text()
    assert f"taskflow worker on {backend}, sqlite:///taskflow.db" in text
    assert "lease   9 s" in text
    assert "Traceback" not in text


@pytest.mark.slow("waits until an event loop counts as stalled")
def test_a_stalled_worker_ends(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(STALLED)
    run_command([sys.executable, "-c", SEND.format(seconds=60)], tmp_path)
    log = tmp_path / "log"
    with running_worker("jobs:app", log=log) as worker:
        assert worker.wait(30) == 70
    assert re.search(r"has not moved for .* inside Stall", log.read_text())


@pytest.mark.slow("waits until an event loop counts as stalled")
def test_a_stalled_worker_may_go_on(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(STALLED)
    run_command([sys.executable, "-c", SEND.format(seconds=4)], tmp_path)
    log = tmp_path / "log"
    with running_worker("jobs:app", "--stall", "log", log=log) as worker:
        wait_until(lambda: "the event loop moves again" in log.read_text(), 30, "it moves again")
        assert worker.poll() is None
        assert terminate(worker, 30) == 0
    assert "has not moved for" in log.read_text()


def readme_file(name: str) -> str:
    """The Python block that the README says to save under this name."""
    text = (ROOT / "README.md").read_text()
    return text[text.index(f"`{name}`") :].split("```python\n", 1)[1].split("```", 1)[0]


def readme_command(start: str) -> list[str]:
    """The shell line of the README that begins so, with this interpreter's commands."""
    (line,) = re.findall(rf"```sh\n({start}[^\n]*)\n```", (ROOT / "README.md").read_text())
    command, *rest = shlex.split(line)
    return [str(Path(sys.executable).parent / command), *rest]


@pytest.mark.slow("runs the README's worker and script")
def test_the_quick_start(tmp_path: Path) -> None:
    for name in ("jobs.py", "send.py"):
        (tmp_path / name).write_text(readme_file(name))
    log = tmp_path / "log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            readme_command("taskflow run worker"), cwd=tmp_path, env=environment(),
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_until(lambda: ready_workers(log) == 1, 30, "the worker is ready")
        printed = run_command(readme_command("python send.py"), tmp_path)
        assert terminate(worker, 30) == 0
    finally:
        worker.kill()
        worker.wait(10)
    assert printed.splitlines() == ["sent to a@example.org", "64", "168", "report 3"]
    assert "Traceback" not in log.read_text()


def test_an_interrupt_before_there_is_a_worker(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    done = taskflow("run", "worker", "jobs:app", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "\n"  # the prompt does not follow the ^C


def test_version_and_help(tmp_path: Path) -> None:
    version = taskflow("--version", cwd=tmp_path)
    assert (version.returncode, version.stderr) == (0, "")
    assert re.fullmatch(r"taskflow, version \d+\.\d+\.\d+\n", version.stdout)
    shown = taskflow("--help", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "run" in shown.stdout
    shown = taskflow("run", "worker", "-h", cwd=tmp_path)
    assert shown.returncode == 0
    assert "--max-attempts" in shown.stdout
    bare = taskflow(cwd=tmp_path)
    assert bare.returncode == 2
    assert bare.stderr.startswith("Usage: ")
