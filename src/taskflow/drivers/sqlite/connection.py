"""One connection to the file: how it is opened and checked, and whose turn it is to write."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from taskflow.abc import Clock
from taskflow.drivers.sqlite.clock import boot_id
from taskflow.drivers.sqlite.faults import refused
from taskflow.drivers.sqlite.schema import Names, install, is_current

if sys.platform != "win32":
    import fcntl

__all__ = ("Place", "Store", "check_place")

OLDEST: Final = (3, 35, 0)
"""The first SQLite with RETURNING."""
_MAGIC: Final = b"SQLite format 3\0"
"""How a database begins."""


class Place(msgspec.Struct, frozen=True):
    """Which store, and how to use it; ``busy_timeout`` in seconds."""

    path: str
    names: Names
    clock: Clock
    busy_timeout: float


class Store:
    """An open connection; used and closed by the thread that made it.

    Raises:
        StoreRefusedError: There is no such folder, no right to write, or no database in the file.
        SchemaMismatchError: A newer version of taskflow made the tables.
        sqlite3.Error: Anything else; the caller translates it.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        check_place(place.path)
        self._turn: int | None = None
        self.conn = sqlite3.connect(
            place.path, timeout=place.busy_timeout, isolation_level=None, cached_statements=256
        )
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        if sys.platform != "win32":
            self._turn = _open_turn(self.place.path)
        self.boot = boot_id()
        self._take_turn()
        try:
            self.conn.execute("PRAGMA journal_mode = WAL")
            self.conn.execute("PRAGMA synchronous = FULL")
            self.conn.execute("PRAGMA foreign_keys = OFF")
            if not is_current(self.conn, self.place.names):
                install(self.conn, self.place.names)
            self._end_leases_of_other_boots()
        finally:
            self._pass_turn()
        self._file = _identity(self.place.path)

    def _end_leases_of_other_boots(self) -> None:
        # Their clock is gone, and with it the machine that held them.
        words = self.place.names.words
        stale = "SELECT 1 FROM {jobs} WHERE {running} AND boot <> ? LIMIT 1".format_map(words)
        if self.conn.execute(stale, (self.boot,)).fetchone() is not None:
            end = "UPDATE {jobs} SET lease_until = -1 WHERE {running} AND boot <> ?"
            self.conn.execute(end.format_map(words), (self.boot,))

    def begin(self, *, writes: bool) -> None:
        """Start a transaction; a writing one waits for its turn among the processes.

        Raises:
            StoreRefusedError: The file was taken away or replaced under us.
        """
        if _identity(self.place.path) != self._file:
            raise refused(
                self.place.path, "the file was moved or replaced while it was open: restart"
            )
        if writes:
            self._take_turn()
        self.conn.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    def commit(self) -> None:
        """End the transaction; what it did is on the disk."""
        self.conn.execute("COMMIT")
        self._pass_turn()

    def roll_back(self) -> None:
        """Undo what is open, if anything is, and pass the turn on."""
        try:
            if self.conn.in_transaction:
                self.conn.execute("ROLLBACK")
        finally:
            self._pass_turn()

    def close(self) -> None:
        """Close; the last connection folds the log into the file."""
        self.conn.close()
        if self._turn is not None:
            os.close(self._turn)
            self._turn = None

    def _take_turn(self) -> None:
        # Queueing here is fair; SQLite's own busy handler lets one process starve the others.
        if sys.platform != "win32" and self._turn is not None:
            fcntl.flock(self._turn, fcntl.LOCK_EX)

    def _pass_turn(self) -> None:
        if sys.platform != "win32" and self._turn is not None:
            fcntl.flock(self._turn, fcntl.LOCK_UN)


def check_place(path: str) -> None:
    """See that there may be a store here, or is one.

    Raises:
        StoreRefusedError: No such folder, or a file that is none of ours.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        found = sqlite3.sqlite_version
        raise refused(path, f"SQLite is {found}, at least 3.35 is needed: use a newer Python")
    folder = Path(path).parent
    if not folder.is_dir():
        raise refused(path, f"the folder {folder} does not exist: create it (mkdir -p {folder})")
    if Path(path).is_dir():
        raise refused(path, "is a folder: name a file in it")
    # SQLite would find out, too, but only when our own files lie beside the stranger's already.
    with suppress(OSError), open(path, "rb") as file:
        if file.read(len(_MAGIC)) not in {b"", _MAGIC}:
            raise refused(path, "the file is not a database: move it away or name another file")


def _open_turn(path: str) -> int:
    try:
        return os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        problem = f"cannot write beside it ({exc.strerror}): give write rights on its folder"
        raise refused(path, problem) from exc


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None
