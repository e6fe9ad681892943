"""The schema: numbered .sql files, each applied once, in one transaction."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec

from taskflow.errors import SchemaMismatchError

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
CREATE TABLE IF NOT EXISTS {schema} (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""


async def _version(connection: Connection, names: Names) -> int | None:
    try:
        found: int | None = await connection.fetchval(
            names.fill("SELECT coalesce(max(version), 0) FROM {schema}")
        )
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    return found


async def check_schema(connection: Connection, names: Names) -> None:
    """The schema is the one that this release needs.

    Raises:
        SchemaMismatchError: It is missing, older or newer.
    """
    found, expected = await _version(connection, names), MIGRATIONS[-1].version
    if found != expected:
        is_newer = found is not None and found > expected
        raise SchemaMismatchError(
            driver=DRIVER, found="missing" if found is None else f"version {found}",
            expected=f"version {expected}",
            remedy="upgrade taskflow" if is_newer else "run `taskflow migrate`",
        )  # fmt: skip


async def pending(connection: Connection, names: Names) -> list[Migration]:
    """The steps that are still to be applied, in order."""
    found = await _version(connection, names) or 0
    return [migration for migration in MIGRATIONS if migration.version > found]


async def migrate(connection: Connection, names: Names) -> list[Migration]:
    """Apply what is missing, each step in a transaction of its own under a lock that lasts no
    longer: a process that is killed leaves whole steps only, and others go on from there.

    Returns:
        The steps that this call applied.
    """
    applied: list[Migration] = []
    while True:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", names.lock)
            await _prepare(connection, names)
            missing = await pending(connection, names)
            if not missing:
                return applied
            step = missing[0]
            await connection.execute(names.fill(step.text))
            await connection.execute(
                names.fill("INSERT INTO {schema} (version, name) VALUES ($1, $2)"),
                step.version, step.name,
            )  # fmt: skip
        applied.append(step)


async def _prepare(connection: Connection, names: Names) -> None:
    """Make room for the tables. Asks first: who may not create may still use what is there."""
    for schema in names.schemas:
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", f'"{schema}"'):
            await connection.execute(f'CREATE SCHEMA "{schema}"')
    ledger = names.fill("{schema}")
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", ledger):
        await connection.execute(names.fill(_LEDGER))
