"""What SQLite's errors mean for a caller, in one place; none of them gets past this module."""

from __future__ import annotations

import sqlite3
from typing import Final

from taskflow.errors import (
    DriverError,
    DriverUnavailableError,
    OutcomeUnknownError,
    StoreFullError,
    StoreRefusedError,
)

__all__ = ("DRIVER", "closed", "refused", "translated")

DRIVER: Final = "sqlite"

_REMEDIES: Final = {
    sqlite3.SQLITE_NOTADB: "the file is not a database: move it away or name another file",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a backup or move it away",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that its folder exists and that "
    "you may write there",
    sqlite3.SQLITE_READONLY: "the file is read-only: give write rights on it and on its folder",
    sqlite3.SQLITE_PERM: "no right to the file: give write rights on it and on its folder",
    sqlite3.SQLITE_AUTH: "no right to the file: give write rights on it and on its folder",
}


def translated(error: sqlite3.Error, *, path: str, is_committing: bool = False) -> DriverError:
    """The driver's error for one of SQLite's.

    Args:
        error: What SQLite raised.
        path: The database, for the message.
        is_committing: It came from the commit itself, whose outcome an I/O error leaves open.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        problem = f"{path}: another process holds the write lock for too long ({error})"
        return DriverUnavailableError(driver=DRIVER, problem=problem)
    if code == sqlite3.SQLITE_FULL:
        problem = f"{path}: the disk is full ({error}): make room there"
        return StoreFullError(driver=DRIVER, problem=problem)
    if code in _REMEDIES:
        return refused(path, f"{_REMEDIES[code]} ({error})")
    if code == sqlite3.SQLITE_IOERR:
        kind = OutcomeUnknownError if is_committing else DriverUnavailableError
        return kind(driver=DRIVER, problem=f"{path}: reading or writing failed ({error})")
    return refused(path, str(error))


def refused(path: str, problem: str) -> StoreRefusedError:
    """The store will not serve us; ``problem`` says why and what mends it, in one line."""
    return StoreRefusedError(driver=DRIVER, problem=f"{path}: {problem}")


def closed(path: str) -> DriverUnavailableError:
    """The driver is closed; the call was surely not applied."""
    return DriverUnavailableError(driver=DRIVER, problem=f"{path}: the driver is closed")
