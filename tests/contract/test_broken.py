"""The suite is itself tested: every broken driver is caught, and soon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest

from taskflow.abc import Driver
from taskflow.drivers.memory import MemoryDriver
from taskflow.testing.contract import VirtualClock, check_driver

from .broken import DRIVERS


@pytest.mark.slow("runs much of the contract")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", DRIVERS)
def test_each_is_caught(name: str) -> None:
    @asynccontextmanager
    async def open_driver(clock: VirtualClock) -> AsyncIterator[Driver]:
        driver = DRIVERS[name](clock)
        await driver.open()
        try:
            yield driver
        finally:
            await driver.aclose()

    report = anyio.run(partial(check_driver, open_driver, fail_fast=True))
    assert not report.passed, f"{name} passes the contract"


@pytest.mark.slow("runs the whole contract")
@pytest.mark.timeout(60)
@pytest.mark.anyio
async def test_the_sound_one_passes() -> None:
    @asynccontextmanager
    async def open_driver(clock: VirtualClock) -> AsyncIterator[Driver]:
        driver = MemoryDriver(clock=clock)
        await driver.open()
        yield driver
        await driver.aclose()

    report = await check_driver(open_driver, programs=8)
    assert [row.name for row in report.rows if row.result == "failed"] == []
    assert report.passed
