"""Jobs within a caller's own transaction, on a connection that is the caller's.

It is only borrowed: nothing of it is changed but the transaction that is open, its codecs and
settings are the caller's, and what is sent names every function with its schema. SQLAlchemy is
not imported, only recognised where the caller has.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from anyio.lowlevel import current_token

from taskflow.drivers.postgres.faults import BROKEN, translated
from taskflow.drivers.postgres.jobs import ENQUEUE_ON, answers, is_plain, work
from taskflow.drivers.postgres.rows import ITEM, drafts
from taskflow.drivers.postgres.schema import DRIVER, MIGRATIONS
from taskflow.errors import (
    ConfigError,
    DriverUnavailableError,
    OutcomeUnknownError,
    SchemaMismatchError,
    StoreRefusedError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskflow._core.records import Enqueued, JobSpec
    from taskflow.drivers.postgres.pool import Connection
    from taskflow.drivers.postgres.store import Store

__all__ = ("enqueue",)

ACCEPTED: Final = (
    "an asyncpg connection, or SQLAlchemy's AsyncConnection or AsyncSession on asyncpg"
)
ALCHEMY: Final = "sqlalchemy.ext.asyncio"
LOST: Final = "the transaction is lost: roll it back and begin again"


async def enqueue(store: Store, connection: object, specs: Sequence[JobSpec]) -> list[Enqueued]:
    """Store jobs within the caller's transaction; see ``PostgresDriver.enqueue_on``."""
    if not isinstance(current_token().native_token, asyncio.AbstractEventLoop):
        raise UnsupportedError(
            driver=DRIVER, capability="transactions on trio",
            remedy="asyncpg has connections on asyncio only: dispatch from there, or without one",
        )  # fmt: skip
    _check_edges(specs)
    own = await _borrowed(connection)
    if not specs:
        return []
    with _in_words(own, store, _is_in_transaction(own)):
        (row,) = await own.fetch(
            store.filled(ENQUEUE_ON), *drafts(specs), is_plain(specs), store.shift(),
            store.channel, ITEM.join(sorted(work(specs))),
        )  # fmt: skip
    verdicts, holders = row
    return answers(specs, verdicts, holders)


def _check_edges(specs: Sequence[JobSpec]) -> None:
    """A predecessor could not end before the caller's transaction has."""
    here = {spec.id for spec in specs}
    for spec in specs:
        for edge in spec.after:
            if edge.id not in here:
                raise ConfigError(
                    option="after", value=edge.id,
                    problem=f"job {spec.id!r} joins a transaction, so what it follows has to be"
                    " dispatched in the same call",
                )  # fmt: skip


async def _borrowed(connection: object) -> Connection:
    """The asyncpg connection inside, with SQLAlchemy's transaction begun where that is its part."""
    inner: Any = connection
    if (alchemy := sys.modules.get(ALCHEMY)) is not None:
        with _alchemy_in_words():
            if isinstance(inner, alchemy.AsyncSession | alchemy.async_scoped_session):
                inner = await inner.connection()
            if isinstance(inner, alchemy.AsyncConnection):
                return await _begun(inner)
    return _checked(inner)


async def _begun(connection: Any) -> Connection:
    """SQLAlchemy begins with the first statement of its own, which may be still to come."""
    own = _checked((await connection.get_raw_connection()).driver_connection)
    if not _is_in_transaction(own):
        await connection.exec_driver_sql("SELECT 1")
    return own


def _checked(connection: object) -> Connection:
    if isinstance(connection, asyncpg.Connection):  # a pool's proxy is one, too
        return connection
    kind = type(connection)
    raise ConfigError(
        option="connection", value=None,
        problem=f"{kind.__module__}.{kind.__qualname__} will not do: give {ACCEPTED}",
    )  # fmt: skip


def _is_in_transaction(connection: Connection) -> bool:
    try:
        if not connection.is_closed():
            return bool(connection.is_in_transaction())
    except asyncpg.InterfaceError as exc:  # given back to its pool
        raise UsageError(f"connection: {exc}") from exc
    raise DriverUnavailableError(
        driver=DRIVER, problem="the connection is closed: begin again on another one"
    )


@contextmanager
def _alchemy_in_words() -> Iterator[None]:
    alchemy = sys.modules["sqlalchemy.exc"]
    try:
        yield
    except alchemy.DBAPIError as exc:
        problem = str(exc.orig).partition("\n")[0]
        raise DriverUnavailableError(driver=DRIVER, problem=f"{problem}: {LOST}") from exc
    except alchemy.SQLAlchemyError as exc:
        raise UsageError(f"connection: {str(exc).partition(chr(10))[0]}") from exc


@contextmanager
def _in_words(connection: Connection, store: Store, is_in_transaction: bool) -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as exc:
        raise _translated(exc, store) from exc
    except TimeoutError as exc:
        problem = f"no answer in the connection's command_timeout: {LOST}"
        raise OutcomeUnknownError(driver=DRIVER, problem=problem) from exc
    except BROKEN as exc:
        raise _broken(exc, connection, is_in_transaction) from exc


def _translated(error: asyncpg.PostgresError, store: Store) -> Exception:
    if isinstance(error, asyncpg.InvalidTransactionStateError):  # read-only, or aborted before
        return StoreRefusedError(driver=DRIVER, problem=str(error))
    found = translated(error)
    if isinstance(found, DriverUnavailableError):
        return type(found)(driver=DRIVER, problem=f"{found.problem}: {LOST}")
    if isinstance(found, SchemaMismatchError):
        return SchemaMismatchError(
            driver=DRIVER, found=f"not there ({error})", expected=f"version {MIGRATIONS[-1].version}",
            remedy=f"connect to {store.shown}, and run `taskflow migrate` if it was not run",
        )  # fmt: skip
    return found


def _broken(error: BaseException, connection: Connection, is_in_transaction: bool) -> Exception:
    problem = str(error) or type(error).__name__
    if not connection.is_closed():
        return UsageError(f"connection: {problem}: use it for one thing at a time")
    if is_in_transaction:
        return DriverUnavailableError(driver=DRIVER, problem=f"{problem}: {LOST}")
    return OutcomeUnknownError(driver=DRIVER, problem=f"the connection broke: {problem}")
