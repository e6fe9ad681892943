"""Servers of our own, started once for each test process that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drivers.redis_server import RedisServer, redis_running
from tests.drivers.servers import PostgresServer, missing


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    if not PostgresServer.is_there():
        missing("PostgreSQL")
    server = PostgresServer()
    try:
        yield server.create()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    if RedisServer.path() is None:
        missing("Redis")
    with redis_running() as server:
        yield server
