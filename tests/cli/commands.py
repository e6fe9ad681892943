"""The command line as a process of its own, in an empty folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..integration.processes import environment

JOBS = """\
from taskflow import App, task

app = App()
text = "no app"


@task
def hello(name: str) -> str:
    return f"hello {name}"
"""


def taskflow(
    *argv: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """What ``taskflow …`` prints, and its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "taskflow", *argv], cwd=cwd, env=environment(**(env or {})),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def side_by_side(
    *commands: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 30
) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of several commands that run at one time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "taskflow", *argv], cwd=cwd, env=environment(**(env or {})),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for argv in commands
    ]  # fmt: skip
    try:
        ended = [(one.communicate(timeout=timeout), one.returncode) for one in started]
    finally:
        for one in started:
            one.kill()
            one.wait()
    return [(code, out, err) for (out, err), code in ended]
