"""Real worker processes for the end-to-end tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**extra: str) -> dict[str, str]:
    """The environment for a child, without the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TASKFLOW_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **extra}


def start_worker(app: str, *flags: str, log: Path, **extra: str) -> subprocess.Popen[bytes]:
    """``taskflow run worker app …`` as a process of its own."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "taskflow", "run", "worker", app, *flags],
            env=environment(**extra), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            cwd=log.parent, start_new_session=True,
        )  # fmt: skip


@contextmanager
def running_worker(
    app: str, *flags: str, log: Path, **extra: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is killed at the end if the test has not ended it."""
    worker = start_worker(app, *flags, log=log, **extra)
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
        worker.wait(10)


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll another process's doings."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """The live children of a process."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(part) for part in text.split()]


def is_alive(pid: int) -> bool:
    """The process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def terminate(worker: subprocess.Popen[bytes], seconds: float = 15) -> int:
    """SIGTERM, and the exit code."""
    worker.send_signal(signal.SIGTERM)
    return worker.wait(seconds)
