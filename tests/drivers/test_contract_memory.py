"""The memory driver keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskflow.abc import Driver
from taskflow.drivers.memory import MemoryDriver
from taskflow.testing.contract import DriverContract, VirtualClock


class TestMemory(DriverContract):
    @asynccontextmanager
    async def open_driver(self, clock: VirtualClock) -> AsyncIterator[Driver]:
        driver = MemoryDriver(clock=clock)
        await driver.open()
        try:
            yield driver
        finally:
            await driver.aclose()
