"""Redis and PostgreSQL: no-op jobs, an idle worker, and dispatches that travel together."""

from __future__ import annotations

import statistics
import sys
from functools import partial

from .children import python
from .latency import idle_figures, watch_idle
from .report import Figure
from .servers import MissingServer, PostgresServer, RedisServer, Server, servers

__all__ = ("postgres", "redis")

JOBS = 20_000
ROUNDS = 5
CALLS = 400


def _measure(kind: type[RedisServer] | type[PostgresServer], backend: str) -> list[Figure]:
    try:
        with servers(kind) as server:
            return [
                _throughput(server, backend),
                *idle_figures(server.name, backend, watch_idle(_ready(server), backend), 5),
                _callers(server, backend),
            ]
    except MissingServer as exc:
        print(f"{kind.name} on {backend} is skipped: {exc}", file=sys.stderr)
        return []


def _ready(server: Server) -> str:
    """An empty store whose tables are there."""
    url = server.fresh()
    python("store", url, 0, "asyncio")
    return url


def _throughput(server: Server, backend: str) -> Figure:
    """One worker process of 100 slots against bare calls of the driver; the median round."""
    found = []
    for _ in range(ROUNDS):
        rates = {}
        for part in ("bare", "work"):
            url = server.fresh()
            python("store", url, JOBS, "asyncio")
            server.settled(url)
            rates[part] = JOBS / python(part, url, JOBS, backend)["seconds"]
        found.append((rates["work"] / rates["bare"], rates["work"], rates["bare"]))
    ratio, rate, bare = sorted(found)[ROUNDS // 2]
    return Figure(
        name=f"{server.name}, no-op jobs", backend=backend, value=100 * ratio, unit="%",
        target=75, note=f"{rate:,.0f} jobs/s against {bare:,.0f} in bare calls of 100 jobs, one "
        f"after another; {server.note}",
    )  # fmt: skip


def _callers(server: Server, backend: str) -> Figure:
    url = _ready(server)
    found = [python("callers", url, CALLS, backend) for _ in range(ROUNDS)]
    ratio = statistics.median(one["alone"] / one["together"] for one in found)
    alone = statistics.median(1 / one["alone"] for one in found)
    return Figure(
        name=f"{server.name}, 100 callers", backend=backend, value=ratio, unit="x", target=10,
        note=f"the median of {ROUNDS}, against {alone:,.0f} dispatches/s of one caller",
    )  # fmt: skip


redis = partial(_measure, RedisServer)
postgres = partial(_measure, PostgresServer)
