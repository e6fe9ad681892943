"""Programs that measure and print one line of JSON, each with a deadline."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ("ChildFailed", "measure", "python")

ROOT = Path(__file__).parents[1]
DEADLINE = 300.0
"""Seconds that one part of a measurement may take."""


class ChildFailed(Exception):
    """It ended badly, or not in time."""


def python(part: str, url: str, number: int, backend: str) -> dict[str, Any]:
    """Run a part of ``jobs.py``."""
    words = [sys.executable, "-m", "benchmarks.jobs", part, url, str(number), backend]
    return measure(words)


def measure(words: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the program printed last, and as ``cpu`` the seconds of a core that it used.

    Raises:
        ChildFailed: With the end of what it said.
    """
    before = _reaped()
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **(env or {})}, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = child.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"not done within {DEADLINE:g} s") from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode:
        raise ChildFailed((err.strip() or out.strip() or "no message")[-600:])
    try:
        found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise ChildFailed(f"it printed no figures: {out[-200:]!r}") from None
    return {**found, "cpu": _reaped() - before}


def _reaped() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
