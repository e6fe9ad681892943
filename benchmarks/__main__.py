"""``python -m benchmarks [names] [--json FILE] [--backend asyncio|trio]``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from .latency import child, idle
from .renewal import renewals
from .report import Figure, show
from .stores import postgres, redis
from .throughput import memory, sqlite

ALL: dict[str, Callable[[str], list[Figure]]] = {
    "memory": memory, "sqlite": sqlite, "idle": idle, "child": child, "renewal": renewals,
    "redis": redis, "postgres": postgres,
}  # fmt: skip


def main() -> int:
    """Run what was asked for; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(ALL))
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--backend", choices=["asyncio", "trio"], help="only on this event loop")
    given = parser.parse_args()
    unknown = set(given.names) - set(ALL)
    if unknown:
        parser.error(f"no benchmark {sorted(unknown)[0]!r}: there are {', '.join(ALL)}")
    logging.disable(logging.WARNING)
    figures: list[Figure] = []
    for name in given.names or ALL:
        for backend in (given.backend,) if given.backend else ("asyncio", "trio"):
            figures += ALL[name](backend)
            print(f"{name} on {backend}", file=sys.stderr)
    show(figures)
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    return 0 if all(one.is_met for one in figures) else 1


sys.exit(main())
