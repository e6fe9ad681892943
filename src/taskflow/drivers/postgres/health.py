"""Whether a server is one to keep jobs in."""

from __future__ import annotations

from typing import Any, Final

from taskflow.drivers.postgres.schema import DRIVER
from taskflow.errors import StoreRefusedError

__all__ = ("examine", "refusal")

OLDEST: Final = 130000
"""The oldest server that will do, as ``server_version_num`` says it."""
_FACTS: Final = (
    "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding'),"
    " pg_is_in_recovery()"
)


async def examine(connection: Any) -> None:
    """Look at the server.

    Raises:
        StoreRefusedError: It is too old, read-only or of another encoding.
    """
    version, encoding, is_standby = await connection.fetchrow(_FACTS)
    problem = refusal(version, encoding, is_standby=is_standby)
    if problem is not None:
        raise StoreRefusedError(driver=DRIVER, problem=problem)


def refusal(version: int, encoding: str, *, is_standby: bool) -> str | None:
    """Why a server cannot keep jobs, if there is a reason.

    Args:
        version: As ``server_version_num`` says it.
        encoding: The database's.
        is_standby: It takes no writes.
    """
    if version < OLDEST:
        return f"PostgreSQL {version // 10000} is too old: 13 or newer is needed"
    if encoding != "UTF8":
        return f"the database's encoding is {encoding}: create one with encoding UTF8"
    if is_standby:
        return "this server is a read-only standby: name the primary"
    return None
