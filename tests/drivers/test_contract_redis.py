"""The Redis driver keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from taskflow.abc import Driver
from taskflow.testing.contract import DriverContract, VirtualClock
from tests.drivers.redis_kit import opened
from tests.drivers.redis_server import RedisServer


class TestRedis(DriverContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        type(self).server = redis_server

    server: RedisServer

    @asynccontextmanager
    async def open_driver(self, clock: VirtualClock) -> AsyncIterator[Driver]:
        async with opened(self.server, clock=clock) as driver:
            yield driver
