"""What goes wrong between us and PostgreSQL, in the words of the seam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from taskflow.drivers.postgres.schema import DRIVER, MIGRATIONS
from taskflow.errors import (
    DriverUnavailableError,
    OutcomeUnknownError,
    SchemaMismatchError,
    StoreBusyError,
    StoreFullError,
    StoreRefusedError,
)

if TYPE_CHECKING:
    from taskflow.errors import DriverError

__all__ = ("AGAIN", "BROKEN", "is_fatal", "translated", "unreachable")

AGAIN: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""Not applied, and worth another try at once: callers met."""
BROKEN: Final = (
    OSError,
    EOFError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
)
"""The connection is gone, with or without a reply."""

BUSY: Final = "somebody's open transaction holds what this needs"
_REFUSED: Final = ("28", "42501", "3D000", "22", "23", "0A000")
_SCHEMA: Final = ("42P01", "42883", "42703", "3F000", "42704")
_FULL: Final = ("53100",)
_PERHAPS: Final = ("08", "57P", "58", "XX")


def _state(error: asyncpg.PostgresError) -> str:
    return getattr(error, "sqlstate", None) or ""


def is_fatal(error: asyncpg.PostgresError) -> bool:
    """The server ends the connection, or it is not one to write to."""
    state = _state(error)
    severity = getattr(error, "severity_en", None)
    return state.startswith(("08", "57P", "25", "XX")) or severity in {"FATAL", "PANIC"}


def translated(error: asyncpg.PostgresError) -> DriverError:
    """What a reply of the server to one statement means; that statement was rolled back."""
    state, problem = _state(error), str(error)
    if state.startswith(_SCHEMA):
        return SchemaMismatchError(
            driver=DRIVER, found=f"not whole ({problem})",
            expected=f"version {MIGRATIONS[-1].version}", remedy="run `taskflow migrate`",
        )  # fmt: skip
    if isinstance(error, asyncpg.LockNotAvailableError):
        return StoreBusyError(driver=DRIVER, problem=f"{BUSY} ({problem})")
    if state.startswith(_FULL):
        return StoreFullError(driver=DRIVER, problem=problem)
    if state.startswith(_REFUSED):
        return StoreRefusedError(driver=DRIVER, problem=problem)
    if state.startswith(_PERHAPS):
        return OutcomeUnknownError(driver=DRIVER, problem=problem)
    return DriverUnavailableError(driver=DRIVER, problem=problem)


def unreachable(error: Exception, where: str) -> DriverError:
    """Why there is no connection; nothing was sent. ``where`` is free of secrets."""
    if isinstance(error, asyncpg.PostgresError):
        refused = _state(error).startswith(_REFUSED)
        kind = StoreRefusedError if refused else DriverUnavailableError
        return kind(driver=DRIVER, problem=f"{where}: {error}")
    if isinstance(error, TimeoutError):
        return DriverUnavailableError(driver=DRIVER, problem=f"{where}: no answer")
    if isinstance(error, OSError | EOFError | asyncpg.PostgresConnectionError):
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return DriverUnavailableError(driver=DRIVER, problem=f"{where}: {problem}")
    return StoreRefusedError(driver=DRIVER, problem=f"{where}: {type(error).__name__}: {error}")
