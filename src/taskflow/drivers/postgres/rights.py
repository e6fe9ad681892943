"""What a worker's user must be allowed, and what an operator should know of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskflow.drivers.postgres.schema import DRIVER
from taskflow.errors import StoreRefusedError

if TYPE_CHECKING:
    from taskflow.drivers.postgres.store import Store

__all__ = ("check",)

_DANGERS: Final = "SELECT name FROM unnest($1::text[]) AS name WHERE current_setting(name) = 'off'"
OLD: Final = 600.0
"""Seconds after which a transaction that is still open is worth a warning."""
_OPEN: Final = """
SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
  AND backend_type = 'client backend' AND xact_start < clock_timestamp() - make_interval(secs => $1)
ORDER BY xact_start LIMIT 1
"""
_LACKING: Final = """
SELECT current_user::text, name, string_agg(ask, ', ' ORDER BY ask)
FROM unnest($1::text[]) AS name, unnest($2::text[]) AS ask
WHERE NOT has_table_privilege(to_regclass(name), ask)
GROUP BY 2
UNION ALL
SELECT current_user::text, $3, 'USAGE' WHERE NOT has_sequence_privilege(to_regclass($3), 'USAGE')
ORDER BY 2 LIMIT 1
"""
_TABLES: Final = "{jobs} {finished} {dead} {edges} {releases}"
_RIGHTS: Final = ["SELECT", "INSERT", "UPDATE", "DELETE"]


async def check(store: Store) -> list[str]:
    """See ``Driver.check``.

    Raises:
        StoreRefusedError: The user may not do what a worker does.
    """
    tables, counter = store.names.fill(_TABLES).split(), store.names.fill("{counter}")
    for user, name, rights in await store.rows(_LACKING, tables, _RIGHTS, counter):
        kind = "SEQUENCE " if name == counter else ""
        raise StoreRefusedError(
            driver=DRIVER,
            problem=f"the user {user!r} lacks rights that a worker needs: as the owner of the "
            f'tables, GRANT {rights} ON {kind}{name} TO "{user}", or name another user',
        )
    rows = await store.rows(_DANGERS, ["fsync", "full_page_writes", "synchronous_commit"])
    warnings = [f"postgres: {name} is off: a crash of the server loses jobs" for (name,) in rows]
    for pid, application, seconds in await store.rows(_OPEN, OLD):
        warnings.append(
            f"postgres: session {pid} ({application!r}) has had a transaction open for"
            f" {seconds / 60:.0f} min: every job that comes and goes meanwhile slows claims down;"
            " end it, and set idle_in_transaction_session_timeout"
        )
    return warnings
