"""Tasks for the shutdown tests."""

from __future__ import annotations

import anyio

from taskflow import App, AsyncTask

app = App()


class Sleeps(AsyncTask[None]):
    seconds: float

    async def execute(self) -> None:
        await anyio.sleep(self.seconds)
