"""Rounds in which everybody has a turn, on one server that is emptied before each."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import msgspec

from benchmarks.children import ChildFailed, measure
from benchmarks.servers import MissingServer, Server, servers

from .entrants import Entrant
from .install import Peers

__all__ = ("Standing", "compete")


class Standing(msgspec.Struct, kw_only=True):
    """What one entrant did in all rounds.

    Attributes:
        enqueued: Jobs stored a second, one value a round.
        worked: Jobs run a second.
        cpu: Microseconds of a core a job: the worker, and its server; its start included.
        since: What the clock started with.
        problem: Why there are no more rounds of it.
    """

    entrant: str
    server: str
    version: str
    enqueued: list[float] = []
    worked: list[float] = []
    cpu: list[tuple[float, float]] = []
    since: str = ""
    problem: str = ""
    target: float | None = None

    @property
    def rate(self) -> float:
        """Jobs a second: the median."""
        return statistics.median(self.worked)


def compete(entrants: Sequence[Entrant], peers: Peers, rounds: int) -> list[Standing]:
    """All rounds; a missing server leaves its entrants out, and a line says so."""
    standings: list[Standing] = []
    for kind in dict.fromkeys(one.server for one in entrants):
        present = [
            (one, _standing(one, peers))
            for one in entrants
            if one.server is kind and _is_there(one, peers)
        ]
        try:
            with servers(kind) as server:
                for turn in range(rounds):
                    _round(server, present, peers, turn)
        except MissingServer as exc:
            print(f"{kind.name}: skipped, {exc}", file=sys.stderr)
            continue
        standings += [standing for _, standing in present]
    return standings


def _is_there(one: Entrant, peers: Peers) -> bool:
    if not one.package or peers.version(one.package):
        return True
    print(f"{one.name}: skipped, {one.package} is not installed: run with --setup",
          file=sys.stderr)  # fmt: skip
    return False


def _round(
    server: Server, present: list[tuple[Entrant, Standing]], peers: Peers, turn: int
) -> None:
    """Each in turn, and backwards every second time: nobody always comes after the same one."""
    for one, standing in present[:: -1 if turn % 2 else 1]:
        if standing.problem:
            continue
        try:
            _measure(server, standing, one, peers)
        except ChildFailed as exc:
            standing.problem = f"failed: {exc}"
            print(f"{one.name} on {server.name} failed: {exc}", file=sys.stderr)
            continue
        print(f"{server.name}, round {turn + 1}: {one.name}: {standing.worked[-1]:,.0f} jobs/s",
              file=sys.stderr)  # fmt: skip


def _measure(server: Server, standing: Standing, one: Entrant, peers: Peers) -> None:
    url = server.fresh()
    env = {"NODE_PATH": str(peers.modules), **one.env}
    rest = [url, str(one.jobs), *([one.backend] if one.backend else [])]
    stored = measure([*one.words(peers), "store", *rest], env)
    server.settled(url)
    before = server.cpu()
    worked = measure([*one.words(peers), "work", *rest], env)
    used = (worked["cpu"], server.cpu() - before)
    standing.cpu.append((1e6 * used[0] / one.jobs, 1e6 * used[1] / one.jobs))
    standing.enqueued.append(one.jobs / stored["seconds"])
    standing.worked.append(one.jobs / worked["seconds"])
    standing.since = worked["since"]


def _standing(one: Entrant, peers: Peers) -> Standing:
    version = peers.version(one.package) if one.package else None
    return Standing(
        entrant=one.name, server=one.server.name, version=version or "", target=one.target
    )
