"""What the benchmarks run."""

from __future__ import annotations

import os
import time

from taskflow import App, AsyncTask, SyncProcessTask

app = App(os.environ.get("BENCHMARK_URL", "memory://"))


class Noop(AsyncTask[None]):
    """Nothing, on the event loop."""

    async def execute(self) -> None:
        """Do nothing."""


class Clocked(AsyncTask[float]):
    """When it started."""

    async def execute(self) -> float:
        """Read the clock that all processes share."""
        return time.monotonic()


class InChild(SyncProcessTask[None]):
    """Nothing, in a child process."""

    def execute(self) -> None:
        """Do nothing."""


class Count:
    """What the bodies of this process did."""

    started = 0
    first = 0.0


count = Count()


class Counted(AsyncTask[None]):
    """Nothing but being counted, on the event loop."""

    async def execute(self) -> None:
        """Count, and note when the first one started."""
        if not count.started:
            count.first = time.perf_counter()
        count.started += 1
