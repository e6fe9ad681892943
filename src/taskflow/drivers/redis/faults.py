"""What goes wrong between us and Redis, in the words of the seam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redis import exceptions as errors

from taskflow.errors import (
    DriverUnavailableError,
    OutcomeUnknownError,
    StoreFullError,
    StoreRefusedError,
)

if TYPE_CHECKING:
    from taskflow.errors import DriverError

__all__ = ("AWAY", "BROKEN", "DRIVER", "RIGHTS", "broken", "refused", "translated", "unreachable")

DRIVER: Final = "redis"
BROKEN: Final = (OSError, EOFError, errors.RedisError)
"""The connection is gone, or what came is no answer."""
AWAY: Final = (errors.ReadOnlyError, errors.ClusterDownError, errors.TryAgainError)
"""Replies of a server that is not, or not yet, the one to talk to. Nothing was done."""

_NOT_YET: Final = (errors.BusyLoadingError, errors.MasterDownError)
_FULL: Final = ("OOM command not allowed", "MISCONF", "command not allowed when used memory")
_LATER: Final = ("BUSY", "LOADING", "MASTERDOWN", "UNKILLABLE", "NOREPLICAS", "CLUSTERDOWN",
                 "max number of clients")  # fmt: skip
_RIGHTS: Final = (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError)
RIGHTS: Final = "see ACL SETUSER in the how-to page on Redis: ~{namespace}* and its commands"
"""What mends a refusal for want of a right."""


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def translated(error: errors.ResponseError) -> DriverError:
    """What a server's refusal means; nothing was done."""
    text = _text(error)
    if isinstance(error, errors.OutOfMemoryError) or any(word in text for word in _FULL):
        return StoreFullError(driver=DRIVER, problem=text)
    if isinstance(error, (*AWAY, errors.AskError)) or any(word in text for word in _LATER):
        return DriverUnavailableError(driver=DRIVER, problem=text)
    if isinstance(error, _RIGHTS) or "user executing" in text:
        text = f"{text}: {RIGHTS}"
    return StoreRefusedError(driver=DRIVER, problem=text)


def broken(error: Exception) -> DriverError:
    """What it means that no answer came after something was sent."""
    if isinstance(error, _NOT_YET):
        return DriverUnavailableError(driver=DRIVER, problem=_text(error))
    if isinstance(error, _RIGHTS):
        return StoreRefusedError(driver=DRIVER, problem=_text(error))
    if isinstance(error, TimeoutError):
        return OutcomeUnknownError(driver=DRIVER, problem="no answer in time")
    return OutcomeUnknownError(driver=DRIVER, problem=f"the connection broke: {_text(error)}")


def refused(where: str, problem: str) -> StoreRefusedError:
    """A server that is there and will not do."""
    return StoreRefusedError(driver=DRIVER, problem=f"{where}: {problem}")


def unreachable(error: Exception, where: str) -> DriverError:
    """Why there is no connection; nothing was sent. ``where`` is free of secrets."""
    text = _text(error)
    if isinstance(error, TimeoutError | errors.TimeoutError):
        is_tls = where.startswith("rediss")
        hint = "does the server speak TLS" if is_tls else "is it a Redis, and does it want TLS"
        return DriverUnavailableError(driver=DRIVER, problem=f"{where}: no answer: {hint}?")
    if "NOAUTH" in text or "HELLO must be called with the client already" in text:
        return refused(where, "a password is needed: put it into the URL or `redis_password`")
    if isinstance(error, _RIGHTS):
        return refused(where, f"user or password are wrong ({text})")
    if "unknown command" in text.lower():
        return refused(where, f"the server is older than Redis 6.2, or something else ({text})")
    if "DB index" in text or "SELECT is not allowed" in text:
        return refused(where, f"there is no such database ({text})")
    if "NOPERM" in text or "no permissions" in text:
        return refused(where, f"{text}: {RIGHTS}")
    if isinstance(error, errors.ResponseError) and not any(word in text for word in _LATER):
        return refused(where, text)
    if isinstance(error, errors.InvalidResponse):
        return refused(where, "what answers there is no Redis")
    return DriverUnavailableError(
        driver=DRIVER, problem=f"{where}: {text.rstrip('.')}{_hint(text)}"
    )


def _hint(text: str) -> str:
    """What mends it, where that is known."""
    if "closed by server" in text:
        return ": is it a Redis that listens there, and does it want TLS?"
    if "Connect call failed" in text or "refused" in text.lower():
        return ": start the server, or mend host and port"
    if "SSL" in text or "certificate" in text:
        return ": does the server speak TLS, and is ssl_ca_certs the right one?"
    return ": mend the host" if " connecting to " in text else ""
