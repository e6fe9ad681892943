"""The schema: numbered .sql files, each applied once, in one transaction."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec

from taskflow.abc import Migrated, SchemaStep
from taskflow.errors import DriverUnavailableError, SchemaMismatchError

if TYPE_CHECKING:
    from taskflow.drivers.postgres.names import Names

__all__ = ("DRIVER", "Connection", "MIGRATIONS", "Migration", "check_schema", "migrate", "pending")

DRIVER: Final = "postgres"

Connection = Any
"""An ``asyncpg.Connection``, which has no types."""


class Migration(msgspec.Struct, frozen=True):
    """One step from version to version."""

    version: int
    name: str
    text: str


def _load() -> tuple[Migration, ...]:
    folder = resources.files("taskflow.drivers.postgres") / "migrations"
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return tuple(
        Migration(int(name[:4]), name, (folder / name).read_text(encoding="utf-8"))
        for name in files
    )


MIGRATIONS: Final = _load()
"""Every step, in order; the last one's version is the one that this release needs."""

_LEDGER: Final = """
CREATE TABLE {schema} (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""
_NOTE: Final = "INSERT INTO {schema} (version, name) VALUES (%d, '%s');\n"
_LOCK: Final = 0x7461736B666C6F77
"""The advisory lock that one migration of a database holds at a time: "taskflow" in ASCII."""
WAITING: Final = 60
"""Seconds to wait for another migration."""
_LIMITS: Final = f"""
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = '{WAITING}s';
SET LOCAL idle_in_transaction_session_timeout = '{WAITING}s';
"""
_FIRST: Final = f"SELECT pg_advisory_xact_lock({_LOCK});\nSET LOCAL lock_timeout = '10s';\n"
_HOLDERS: Final = """
SELECT string_agg(pid::text, ', ') FROM pg_locks WHERE locktype = 'advisory' AND granted
AND classid::bigint << 32 | objid::bigint = $1
"""


async def _version(connection: Connection, names: Names) -> int | None:
    ledger = names.fill("{schema}")
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", ledger):
        return None
    found: int = await connection.fetchval(
        names.fill("SELECT coalesce(max(version), 0) FROM {schema}")
    )
    return found


async def check_schema(connection: Connection, names: Names) -> None:
    """The schema is the one that this release needs.

    Raises:
        SchemaMismatchError: It is missing, older or newer.
    """
    found = await _version(connection, names)
    if found is None:
        raise _mismatch(f"missing (no table {names.store}_schema)")
    if found < MIGRATIONS[-1].version:
        raise _mismatch(f"version {found}")
    _refuse_newer(found)


def _refuse_newer(found: int) -> None:
    if found > MIGRATIONS[-1].version:
        raise _mismatch(f"version {found}", "upgrade taskflow")


def _mismatch(found: str, remedy: str = "run `taskflow migrate`") -> SchemaMismatchError:
    return SchemaMismatchError(
        driver=DRIVER, found=found, expected=f"version {MIGRATIONS[-1].version}", remedy=remedy
    )


async def pending(connection: Connection, names: Names) -> Migrated:
    """The steps that are still to be applied, in order. Run one after the other in one transaction
    their SQL comes to the same as ``migrate``.

    Raises:
        SchemaMismatchError: A newer version made the schema.
    """
    found = await _version(connection, names)
    _refuse_newer(found or 0)
    before = "" if found is not None else await _room(connection, names)
    steps = []
    for one in MIGRATIONS:
        if one.version > (found or 0):
            steps.append(SchemaStep(one.version, one.name, before + names.fill(_sql(one))))
            before = ""
    return Migrated(MIGRATIONS[-1].version, tuple(steps))


def _sql(one: Migration) -> str:
    return f"-- {one.name}\n{_FIRST}{one.text.rstrip()}\n{_NOTE % (one.version, one.name)}"


async def _room(connection: Connection, names: Names) -> str:
    """What makes room for the tables. Asks first: who may not create may still use what is there."""
    made = [
        f'CREATE SCHEMA "{schema}";\n'
        for schema in names.schemas
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", f'"{schema}"')
    ]
    return "".join(made) + names.fill(_LEDGER).lstrip()


async def migrate(connection: Connection, names: Names) -> Migrated:
    """Apply what is missing, each step in a transaction of its own under a lock that lasts no
    longer: a process that is killed leaves whole steps only, and others go on from there.

    Returns:
        The steps that this call applied.

    Raises:
        SchemaMismatchError: A newer version made the schema. Nothing was changed.
        DriverUnavailableError: Another migration holds the lock for too long.
    """
    applied: list[SchemaStep] = []
    while True:
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(_LIMITS)
            await _lock(connection)
            missing = await pending(connection, names)
            if not missing.steps:
                return Migrated(missing.version, tuple(applied))
            step = missing.steps[0]
            await _apply(connection, step)
        applied.append(step)


async def _apply(connection: Connection, step: SchemaStep) -> None:
    try:
        await connection.execute(step.sql)
    except asyncpg.LockNotAvailableError as exc:
        raise DriverUnavailableError(
            driver=DRIVER, problem=f"{step.name}: the tables are in use ({exc}): run it again",
        ) from exc  # fmt: skip


async def _lock(connection: Connection) -> None:
    try:
        async with connection.transaction():  # a savepoint: the holder is asked for after a refusal
            await connection.execute(_FIRST)
    except asyncpg.LockNotAvailableError:
        holders = await connection.fetchval(_HOLDERS, _LOCK)
        raise DriverUnavailableError(
            driver=DRIVER,
            problem=f"another migration holds the lock for more than {WAITING} s (process "
            f"{holders} of the server): wait for it, or end it by pg_terminate_backend",
        ) from None
