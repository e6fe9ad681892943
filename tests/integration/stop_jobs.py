"""Tasks for the end-to-end tests. Each writes a line to the ledger when it begins and ends."""

from __future__ import annotations

import time
from typing import Literal

import anyio

from taskflow import App, AsyncTask, SyncProcessTask, current

from .ledger import note

app = App()


class Naps(AsyncTask[str]):
    seconds: float

    async def execute(self) -> str:
        note("start")
        try:
            await anyio.sleep(self.seconds)
        except BaseException:
            note("stopped")
            raise
        note("end")
        return "rested"


class NapsInChild(SyncProcessTask[None]):
    seconds: float

    def execute(self) -> None:
        note("start")
        time.sleep(self.seconds)
        note("end")


class HoldsLoop(AsyncTask[int]):
    """Blocks its event loop, in the first ``times`` deliveries; returns the delivery."""

    seconds: float
    how: Literal["sleep", "spin"]
    times: int = 1

    async def execute(self) -> int:
        note("start")
        if current().delivery <= self.times:
            self._hold()
        note("end")
        return current().delivery

    def _hold(self) -> None:
        if self.how == "sleep":
            time.sleep(self.seconds)  # noqa: ASYNC251 - that is the point
        until = time.monotonic() + (self.seconds if self.how == "spin" else 0)
        while time.monotonic() < until:
            pass
