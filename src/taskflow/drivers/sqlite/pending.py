"""What opening a file would create in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from taskflow.abc import Migrated, SchemaStep
from taskflow.drivers.sqlite.connection import check_place
from taskflow.drivers.sqlite.faults import translated
from taskflow.drivers.sqlite.schema import VERSION, is_current, script

if TYPE_CHECKING:
    from taskflow.drivers.sqlite.connection import Place

__all__ = ("pending",)


def pending(place: Place) -> Migrated:
    """The steps that are still to be applied. Changes nothing, and makes no file.

    Raises:
        StoreRefusedError: There is no such folder, or no database in the file.
        SchemaMismatchError: A newer version of taskflow made the tables.
    """
    check_place(place.path)
    if _is_current(place):
        return Migrated(VERSION, ())
    return Migrated(VERSION, (SchemaStep(VERSION, "tables", script(place.names)),))


def _is_current(place: Place) -> bool:
    file = Path(place.path)
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as conn:
            return is_current(conn, place.names)
    except sqlite3.Error as exc:
        raise translated(exc, path=place.path) from exc
