"""What goes wrong between us and PostgreSQL, in the words of the seam."""

from __future__ import annotations

from socket import gaierror
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


_REMEDIES: Final = {
    "28": "mend user and password in the URL, or pg_hba.conf",
    "3D000": "create it (createdb), or mend the URL",
    "42704": "mend the options of the URL",
    "53300": "raise max_connections, or lower the pools",
}
_HINTS: Final = {
    "Connect call failed": "nobody listens there: start the server, or mend host and port",
    "No such file": "there is no socket: start the server, or name a host in the URL",
    "refused": "nobody listens there: start the server, or mend host and port",
    "SSL upgrade": "the server has no TLS: turn it on there, or leave sslmode out of the URL",
    "certificate": "see sslmode and sslrootcert in the URL",
}
_NO_ANSWER: Final = "no answer: see that it is a PostgreSQL, and that nothing lies between"
_RIGHTS: Final = "let its owner GRANT it to this user, or name another user in the URL"


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
    if state == "42501":
        problem = f"{problem}: {_RIGHTS}"
    if state.startswith(_REFUSED):
        return StoreRefusedError(driver=DRIVER, problem=problem)
    if state.startswith(_PERHAPS):
        return OutcomeUnknownError(driver=DRIVER, problem=problem)
    return DriverUnavailableError(driver=DRIVER, problem=problem)


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def unreachable(error: Exception, where: str) -> DriverError:
    """Why there is no connection; nothing was sent. ``where`` is free of secrets."""
    if isinstance(error, asyncpg.PostgresError):
        refused = _state(error).startswith(_REFUSED)
        kind = StoreRefusedError if refused else DriverUnavailableError
        remedy = next(
            (text for code, text in _REMEDIES.items() if _state(error).startswith(code)), ""
        )
        return kind(driver=DRIVER, problem=_joined(where, str(error), remedy))
    if isinstance(error, TimeoutError):
        return DriverUnavailableError(driver=DRIVER, problem=_joined(where, _NO_ANSWER))
    if isinstance(error, OSError | EOFError | asyncpg.PostgresConnectionError):
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, gaierror):
            problem = f"the host is not known ({problem}): mend it"
        hint = next((text for words, text in _HINTS.items() if words in problem), "")
        return DriverUnavailableError(driver=DRIVER, problem=_joined(where, problem, hint))
    return StoreRefusedError(driver=DRIVER, problem=f"{where}: {type(error).__name__}: {error}")
