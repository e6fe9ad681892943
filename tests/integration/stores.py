"""A store of each kind for the end-to-end tests: a file, or a place in a private server."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio

from taskflow.drivers.postgres import PostgresDriver
from tests.drivers.redis_server import RedisServer, redis_running
from tests.drivers.servers import PostgresServer, missing

KINDS = ("sqlite", "redis", "postgres")

_numbers = itertools.count()
_shared: list[PostgresServer] = []


class Server(NamedTuple):
    """A server that a test may end."""

    url: str
    down: dict[str, Callable[[], None]]
    """Ways to end it, by name."""
    up: Callable[[], object]
    """Start it on the same port and data; returns when it answers."""


@contextmanager
def store_url(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty store that several processes may open."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/jobs.db"
    elif kind == "redis":
        _need_redis()
        with redis_running() as redis:
            yield redis.url
    else:
        yield _migrated(_postgres().create_database(f"t{next(_numbers)}"))


@contextmanager
def redis_durable() -> Iterator[Server]:
    """A Redis that keeps whatever it has accepted."""
    _need_redis()
    with redis_running(appendonly="yes", appendfsync="always") as redis:
        yield Server(redis.url, {"kill": lambda: redis.stop(signal.SIGKILL)}, redis.start)


@contextmanager
def postgres_durable() -> Iterator[Server]:
    """A PostgreSQL that keeps whatever it has committed."""
    _need_postgres()
    one = PostgresServer(fsync="on", full_page_writes="on", synchronous_commit="on")
    try:
        one.create()
        ways = {"kill": one.kill, "immediate": lambda: one.stop(signal.SIGQUIT)}
        yield Server(_migrated(one.url), ways, one.start)
    finally:
        one.remove()


def remove_shared() -> None:
    """End the server that tests share."""
    while _shared:
        _shared.pop().remove()


def _postgres() -> PostgresServer:
    """One for all tests of the process, each of which has its database."""
    if not _shared:
        _need_postgres()
        _shared.append(PostgresServer())
        _shared[0].create()
    return _shared[0]


def _need_postgres() -> None:
    if not PostgresServer.is_there():
        missing("PostgreSQL")


def _need_redis() -> None:
    if RedisServer.path() is None:
        missing("Redis")


def _migrated(url: str) -> str:
    anyio.run(PostgresDriver(url).migrate)
    return url
