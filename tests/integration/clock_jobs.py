"""Tasks for the tests of clocks that are wrong."""

from __future__ import annotations

import time
from datetime import timedelta

import anyio

from taskflow import App, AsyncTask, SyncProcessTask

from .ledger import note

app = App()


class Rests(AsyncTask[float]):
    """Returns the worker's own idea of the time."""

    seconds: float = 0.0

    async def execute(self) -> float:
        note("start")
        await anyio.sleep(self.seconds)
        note("end")
        return time.time()


class RestsInChild(SyncProcessTask[float]):
    seconds: float = 0.0

    def execute(self) -> float:
        note("start")
        time.sleep(self.seconds)
        note("end")
        return time.time()


class Sends(AsyncTask[str]):
    """A worker's dispatch: the delay is counted by the store."""

    after: float

    async def execute(self) -> str:
        note("start")
        job = await Rests().options(expires_in=timedelta(hours=1)).delay(self.after).dispatch()
        note("end")
        return job.id
