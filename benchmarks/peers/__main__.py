"""``python -m benchmarks.peers [--setup] [--rounds N] [--only NAME] [--json FILE]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from benchmarks.servers import PostgresServer, RedisServer

from .entrants import ENTRANTS, Entrant
from .install import Peers, cache_folder
from .rounds import compete
from .table import ratios_of, show


def main() -> int:
    """Measure; exit code 1 when a target is missed or a peer failed."""
    given = _arguments()
    peers = Peers(given.folder)
    if given.setup:
        peers.install()
    entrants = _chosen(given.only)
    if given.jobs:
        for one in entrants:
            one.jobs = given.jobs
    standings = compete(entrants, peers, given.rounds)
    ratios = ratios_of(standings)
    show(standings, ratios)
    print(f"no-op jobs, one worker process; Redis: {RedisServer.note};"
          f" PostgreSQL: {PostgresServer.note}")  # fmt: skip
    if given.json:
        found = msgspec.json.encode({"standings": standings, "ratios": ratios})
        given.json.write_bytes(msgspec.json.format(found))
    return 0 if all(one.is_met for one in ratios) and not any(
        one.problem for one in standings
    ) else 1  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--setup", action="store_true", help="install what is missing, first")
    parser.add_argument("--folder", type=Path, default=cache_folder(), help="where they are")
    parser.add_argument("--rounds", type=int, default=5, help="0 measures nothing")
    parser.add_argument("--jobs", type=int, help="in each round; default: 60,000 and 20,000")
    parser.add_argument(
        "--only", action="append", metavar="NAME",
        help="peers whose name starts so, redis or postgresql; taskflow always takes part",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write every round there, too")
    return parser.parse_args()


def _chosen(only: list[str] | None) -> list[Entrant]:
    """Those who were named, and taskflow on the same servers."""
    if not only:
        return list(ENTRANTS)
    named = [
        one
        for one in ENTRANTS
        if any(one.name.startswith(name) or one.server.name.lower() == name for name in only)
    ]
    if not named:
        known = ", ".join(sorted({one.package for one in ENTRANTS if one.package}))
        sys.exit(f"no peer {only[0]!r}: there are {known}")
    kinds = {one.server for one in named}
    return [one for one in ENTRANTS if one in named or (one.backend and one.server in kinds)]


if __name__ == "__main__":
    sys.exit(main())
