"""The PostgreSQL driver keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from taskflow.abc import Driver
from taskflow.testing.contract import DriverContract, VirtualClock
from tests.drivers.postgres_kit import opened
from tests.drivers.servers import PostgresServer


@pytest.mark.slow("a server, and a schema for each program")
@pytest.mark.timeout(90)
class TestPostgres(DriverContract):
    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: PostgresServer) -> None:
        type(self).server = postgres_server

    server: PostgresServer

    @asynccontextmanager
    async def open_driver(self, clock: VirtualClock) -> AsyncIterator[Driver]:
        async with opened(self.server, clock_offset=lambda: clock.offset) as driver:
            yield driver
