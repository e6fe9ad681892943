"""The store's server is killed under load: nothing accepted is lost, and workers go on."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import anyio
import hypothesis
import pytest

from taskflow._core.states import JobState

from .conftest import Place, records
from .dispatchers import Accepted, dispatching
from .ledger import uptime
from .processes import terminate, wait_until
from .stores import Server, postgres_durable, redis_durable

pytestmark = [pytest.mark.slow("kills a server under load"), pytest.mark.timeout(240)]

IS_DEEP = hypothesis.settings().max_examples > 100
OUTAGES = 5 if IS_DEEP else 1
AWAY = (1.5, 12.0) if IS_DEEP else (1.5, 2.0)
"""Seconds; longer than what workers have claimed keeps them busy."""
SOON = 10.0 if IS_DEEP else 60.0
"""Seconds from the server's return until every worker has begun a new job. Ten are promised; where
four tests share two cores, that is not what is tested."""
LINES = 15
"""What one worker may log of one outage, however long."""
CASES = [
    ("redis", "kill", "asyncio"), ("redis", "kill", "trio"),
    ("postgres", "kill", "asyncio"), ("postgres", "immediate", "trio"),
]  # fmt: skip
if IS_DEEP:
    CASES += [("postgres", "kill", "trio"), ("postgres", "immediate", "asyncio")]
WORKERS = ("one", "two")
DURABLE: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "redis": redis_durable,
    "postgres": postgres_durable,
}


class Scene:
    """A server, two workers and somebody who dispatches."""

    def __init__(self, place: Place, server: Server, pids: list[int], accepted: Accepted) -> None:
        self.place, self.accepted = place, accepted
        self._server, self._pids = server, pids

    def outage(self, way: str, seconds: float) -> None:
        """End the server while all work, and start it again; every worker goes on."""
        self._await_starts(uptime(), 60)
        before = self._lines()
        self._server.down[way]()
        time.sleep(seconds)
        rising = uptime()
        self._server.up()
        back = uptime()
        self._await_starts(rising, SOON)
        slowest = max(self._starts(pid, rising)[0] for pid in self._pids) - back
        wait_until(partial(self.accepted.since, back), SOON, "jobs are accepted")
        logged = [now - then for now, then in zip(self._lines(), before, strict=True)]
        print(f"workers went on {slowest:.2f} s after the return; logged {logged} lines")

    def _await_starts(self, since: float, seconds: float) -> None:
        for pid in self._pids:
            wait_until(partial(self._starts, pid, since), seconds, "every worker begins a job")

    def _starts(self, pid: int, since: float) -> list[float]:
        notes = self.place.ledger.notes("start")
        return [one.at for one in notes if one.pid == pid and one.at > since]

    def _lines(self) -> list[int]:
        return [len(self.place.log(name).read_text().splitlines()) for name in WORKERS]


@contextmanager
def scene(folder: Path, kind: str, backend: str, lease: int) -> Iterator[Scene]:
    """In the end the workers have ended in order."""
    flags = ("--concurrency", "10", "--max-crashes", "10", "--lease", str(lease))
    with DURABLE[kind]() as server:
        place = Place(folder, server.url)
        with (
            place.worker(WORKERS[0], backend, *flags) as one,
            place.worker(WORKERS[1], backend, *flags) as two,
        ):
            place.wait_ready(*WORKERS)
            with dispatching(place, backend) as accepted:
                yield Scene(place, server, [one.pid, two.pid], accepted)
            all_complete(place, accepted.ids())
            assert [terminate(worker, 60) for worker in (one, two)] == [0, 0]
        for name in WORKERS:
            assert "Traceback" not in place.log(name).read_text()


def all_complete(place: Place, ids: list[str]) -> None:
    assert len(ids) == len(set(ids))

    def states() -> set[JobState]:
        return {record.state for record in anyio.run(records, place, ids).values()}

    wait_until(lambda: states() == {JobState.COMPLETED}, 90, "every accepted job ends")


@pytest.mark.parametrize(("kind", "way", "backend"), CASES)
def test_a_killed_server_loses_nothing(tmp_path: Path, kind: str, way: str, backend: str) -> None:
    rng = random.Random(f"{kind} {way} {backend}")
    with scene(tmp_path, kind, backend, lease=60) as ours:
        for _ in range(OUTAGES):
            time.sleep(rng.uniform(0, 0.2))
            ours.outage(way, rng.uniform(*AWAY))
    # No worker died and no lease ran out: no job had a reason to run twice.
    said: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for note in ours.place.ledger.notes():
        said[note.job_id] += (note.what,)
    assert {said[job_id] for job_id in ours.accepted.ids()} == {("start", "end")}
    for name in WORKERS:
        assert len(ours.place.log(name).read_text().splitlines()) < LINES * (OUTAGES + 1)


@pytest.mark.parametrize(("kind", "backend"), [("redis", "asyncio"), ("postgres", "trio")])
def test_an_outage_may_outlast_leases(tmp_path: Path, kind: str, backend: str) -> None:
    with scene(tmp_path, kind, backend, lease=2) as ours:
        ours.outage("kill", 5.5)
    ends = {note.job_id for note in ours.place.ledger.notes("end")}
    assert set(ours.accepted.ids()) <= ends
