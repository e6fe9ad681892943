"""Who takes part, with which settings, and what is asked of taskflow against them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks.servers import PostgresServer, RedisServer

from .install import Peers

__all__ = ("ENTRANTS", "Entrant")

HERE = Path(__file__).parent


class Entrant(msgspec.Struct, kw_only=True):
    """One library with one choice of settings.

    Attributes:
        server: Where it stores jobs.
        package: Its name in its registry; empty for taskflow.
        script: Beside this file.
        env: Its settings.
        jobs: Stored and run in each round.
        target: How many times as fast taskflow has to be; ``None`` where it is only shown.
        backend: For taskflow, its event loop.
    """

    name: str
    server: type[RedisServer] | type[PostgresServer]
    package: str = ""
    script: str = ""
    env: Mapping[str, str] = {}
    jobs: int = 60_000
    target: float | None = None
    backend: str = ""

    def words(self, peers: Peers) -> list[str]:
        """The program; the part, the URL and the number of jobs follow."""
        if self.backend:
            return [sys.executable, "-m", "benchmarks.jobs"]
        runs = peers.node if self.script.endswith(".js") else str(peers.python)
        return [runs or "node", str(HERE / self.script)]


ENTRANTS = (
    Entrant(name="taskflow, asyncio", server=RedisServer, backend="asyncio"),
    Entrant(name="taskflow, trio", server=RedisServer, backend="trio"),
    Entrant(
        name="bullmq", server=RedisServer, package="bullmq", script="bullmq.js",
        env={"KEEP": "yes"}, target=3,
    ),
    Entrant(
        name="bullmq, done jobs removed", server=RedisServer, package="bullmq",
        script="bullmq.js", env={"KEEP": "no"},
    ),
    Entrant(
        name="taskiq, stream", server=RedisServer, package="taskiq", script="taskiq_jobs.py",
        env={"BROKER": "stream"}, target=15, jobs=20_000,
    ),
    Entrant(
        name="taskiq, list", server=RedisServer, package="taskiq", script="taskiq_jobs.py",
        env={"BROKER": "list"}, target=15, jobs=20_000,
    ),
    Entrant(name="taskflow, asyncio", server=PostgresServer, backend="asyncio"),
    Entrant(name="taskflow, trio", server=PostgresServer, backend="trio"),
    Entrant(
        name="graphile-worker, 100 at a time", server=PostgresServer, package="graphile-worker",
        script="graphile.js", env={"CONCURRENCY": "100"}, target=1,
    ),
    Entrant(
        name="graphile-worker, 24 at a time", server=PostgresServer, package="graphile-worker",
        script="graphile.js", env={"CONCURRENCY": "24"}, target=1,
    ),
    Entrant(
        name="pgqueuer, 100 a claim", server=PostgresServer, package="pgqueuer",
        script="pgqueuer_jobs.py", env={"BATCH": "100"}, target=2,
    ),
    Entrant(
        name="pgqueuer, 500 a claim", server=PostgresServer, package="pgqueuer",
        script="pgqueuer_jobs.py", env={"BATCH": "500"},
    ),
)  # fmt: skip
