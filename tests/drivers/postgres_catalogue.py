"""What a schema is made of, as the server tells it, so that two of them can be compared."""

from __future__ import annotations

from taskflow.drivers.postgres import PostgresDriver, schema
from tests.drivers.postgres_kit import Admin

__all__ = ("catalogue", "on_version")

_PARTS = """
WITH n AS (SELECT oid FROM pg_namespace WHERE nspname = $1),
c AS (SELECT * FROM pg_class WHERE relnamespace = (SELECT oid FROM n))
SELECT 'relation ' || relname || ' ' || relkind::text || ' ' || coalesce(reloptions::text, '')
    || CASE WHEN relkind = 'v' THEN pg_get_viewdef(oid) ELSE '' END FROM c
UNION ALL
SELECT 'column ' || c.relname || ' ' || attnum || ' ' || attname || ' ' ||
    format_type(atttypid, atttypmod) || ' ' || attnotnull || ' ' || attcollation::regcollation
    || ' ' || coalesce(pg_get_expr(adbin, adrelid), '')
FROM c JOIN pg_attribute AS a ON a.attrelid = c.oid AND attnum > 0
LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = attnum
UNION ALL
SELECT 'index ' || pg_get_indexdef(indexrelid) || indisvalid FROM pg_index JOIN c ON c.oid = indrelid
UNION ALL
SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = (SELECT oid FROM n)
UNION ALL
SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc
WHERE pronamespace = (SELECT oid FROM n)
UNION ALL
SELECT 'sequence ' || s::text FROM c JOIN LATERAL
    (SELECT c.relname, seqstart, seqincrement, seqmax, seqcache, seqcycle FROM pg_sequence
    WHERE seqrelid = c.oid) AS s ON true
ORDER BY 1
"""


async def catalogue(db: Admin, driver: PostgresDriver) -> list[str]:
    """Every relation, column, index, constraint, function and sequence, and the ledger; the
    schema's own name is left out.
    """
    (name,) = driver._names.schemas
    parts = [row[0] for row in await db.rows(_PARTS, name)]
    ledger = driver._names.fill("SELECT version || ' ' || name FROM {schema} ORDER BY version")
    found = parts + [row[0] for row in await db.rows(ledger)]
    for own in (
        f'"{name}".',
        f"{name}.",
        *map(driver._names.fill, ("{salt_key}", "{salt_request}")),
    ):
        found = [text.replace(own, "") for text in found]
    return found


async def on_version(driver: PostgresDriver, version: int) -> None:
    """Bring the schema to a version as a release did that knew no later one; 0: leave it."""
    if not version:
        return
    known = schema.MIGRATIONS
    schema.MIGRATIONS = known[:version]  # type: ignore[misc]
    try:
        await driver.migrate()
    finally:
        schema.MIGRATIONS = known  # type: ignore[misc]
