"""A file in which bodies, in whatever process, note when they begin and end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from taskflow import current

VARIABLE = "TEST_LEDGER"


def uptime() -> float:
    """A clock that all processes of the machine share."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def note(what: str) -> None:
    """Append one line; atomic, because it is short and O_APPEND."""
    ctx = current()
    line = f"{uptime():.6f} {os.getpid()} {ctx.kind} {ctx.id} {ctx.delivery} {what}\n"
    with open(os.environ[VARIABLE], "ab", buffering=0) as ledger:
        ledger.write(line.encode())


class Note(NamedTuple):
    """One line."""

    at: float
    pid: int
    kind: str
    job_id: str
    delivery: int
    what: str


class Ledger:
    """The file, as the test reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def notes(self, what: str = "", kind: str = "") -> list[Note]:
        """The lines so far, in order; all, or those that say ``what`` of a ``kind``."""
        lines = self.path.read_text().splitlines()
        return [
            one for one in map(_read, lines) if what in {"", one.what} and kind in {"", one.kind}
        ]

    def said(self, job_id: str) -> list[str]:
        """What one job noted."""
        return [one.what for one in self.notes() if one.job_id == job_id]


def _read(line: str) -> Note:
    at, pid, kind, job_id, delivery, what = line.split()
    return Note(float(at), int(pid), kind, job_id, int(delivery), what)
