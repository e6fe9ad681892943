"""Servers for the commands: the drivers' own, one for each test process that asks for one."""

from __future__ import annotations

from tests.drivers.conftest import postgres_server, redis_server

__all__ = ("postgres_server", "redis_server")
