"""A program that dispatches until it is killed, and writes down what the store has accepted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import anyio

from taskflow.errors import DriverError

from .conftest import Place
from .ledger import uptime
from .processes import ROOT, environment
from .stop_jobs import Naps, app

BATCH = 5
PAUSE = 0.05
NAP = 0.1
AGAIN = 0.1


class Accepted:
    """The file of what was accepted, as the test reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def ids(self) -> list[str]:
        """The jobs that the store has promised to keep."""
        return [line.split()[1] for line in self._path.read_text().splitlines()]

    def since(self, moment: float) -> int:
        """How many were accepted later than that."""
        lines = self._path.read_text().splitlines()
        return sum(1 for line in lines if float(line.split()[0]) > moment)


@contextmanager
def dispatching(place: Place, backend: str) -> Iterator[Accepted]:
    """Naps are dispatched all the while, by another process."""
    accepted = Accepted(place.folder / "accepted")
    with place.log("dispatcher").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, backend, str(place.folder / "accepted")],
            env=environment(TASKFLOW_URL=place.url), stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
    try:
        yield accepted
        assert process.poll() is None, place.log("dispatcher").read_text()
    finally:
        process.kill()
        process.wait(10)


async def _accepted(batch: list[str]) -> list[str]:
    """Dispatch until it is known to be stored; the ids of the jobs make it safe to do so again."""
    naps = [Naps(seconds=NAP).options(id=job_id, max_attempts=10) for job_id in batch]
    while True:
        try:
            return [job.id for job in await app.dispatch_many(naps)]
        except DriverError as exc:
            if not exc.retryable:
                raise
            await anyio.sleep(AGAIN)


async def _main(path: str) -> None:
    accepted = os.open(path, os.O_WRONLY | os.O_APPEND)
    async with app:
        for turn in count():
            ids = await _accepted([f"nap-{turn}-{n}" for n in range(BATCH)])
            os.write(accepted, "".join(f"{uptime():.6f} {job_id}\n" for job_id in ids).encode())
            await anyio.sleep(PAUSE)


if __name__ == "__main__":
    anyio.run(_main, sys.argv[2], backend=sys.argv[1])
