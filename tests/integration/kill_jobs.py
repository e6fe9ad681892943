"""Tasks for the kill tests. Each writes a line to the ledger when it begins and when it ends."""

from __future__ import annotations

import os
import time

import anyio

from taskflow import App, AsyncProcessTask, AsyncTask, SyncProcessTask, SyncTask, current

from .ledger import uptime

app = App()
SECONDS = float(os.environ.get("KILL_JOB_SECONDS", "0.2"))


def note(what: str) -> None:
    """Append one line; atomic, because it is short and O_APPEND."""
    ctx = current()
    worker = ctx.worker_id.rsplit(":", 2)[1]
    line = f"{uptime():.6f} {worker} {ctx.id} {ctx.delivery} {what}\n"
    with open(os.environ["KILL_LEDGER"], "ab", buffering=0) as ledger:
        ledger.write(line.encode())


class InLoop(AsyncTask[str]):
    n: int

    async def execute(self) -> str:
        note("start")
        await anyio.sleep(SECONDS)
        note("end")
        return f"loop {self.n}"


class InThread(SyncTask[str]):
    n: int

    def execute(self) -> str:
        note("start")
        time.sleep(SECONDS)
        note("end")
        return f"thread {self.n}"


class InProcess(SyncProcessTask[str]):
    n: int

    def execute(self) -> str:
        note("start")
        time.sleep(SECONDS)
        note("end")
        return f"process {self.n}"


class InProcessLoop(AsyncProcessTask[str]):
    n: int

    async def execute(self) -> str:
        note("start")
        await anyio.sleep(SECONDS)
        note("end")
        return f"process loop {self.n}"
