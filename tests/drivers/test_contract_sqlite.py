"""The SQLite driver keeps the contract."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from taskflow.abc import Driver
from taskflow.drivers.sqlite import SqliteDriver
from taskflow.testing.contract import DriverContract, VirtualClock

# In memory where there is such a place: durability has tests of its own.
PLACE = "/dev/shm" if Path("/dev/shm").is_dir() else None


class TestSqlite(DriverContract):
    @asynccontextmanager
    async def open_driver(self, clock: VirtualClock) -> AsyncIterator[Driver]:
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            driver = SqliteDriver(Path(folder) / "jobs.db", clock=clock)
            await driver.open()
            try:
                yield driver
            finally:
                await driver.aclose()
