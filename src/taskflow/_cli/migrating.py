"""``taskflow migrate``: create or upgrade the store's schema, or print what would do it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from taskflow._cli.loading import check_backend, find_app
from taskflow.config import Config, project_table
from taskflow.drivers import driver_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskflow.abc import Driver, Migrated

__all__ = ("migrate",)

NO_SCHEMA: Final = "nothing to do: this store has no schema"


def migrate(
    app: str | None, folder: str, flags: Mapping[str, Any], *, dry_run: bool, as_json: bool
) -> None:
    """Migrate the store of an app, or of the settings when there is none, and print what was done.

    Raises:
        CommandError: The app cannot be found.
        TaskflowError: The settings or the store are wrong. Steps that are whole stay.
    """
    driver, backend = _driver(app, folder, flags)
    check_backend(backend)
    done = anyio.run(_migrate, driver, dry_run, backend=backend)
    show = _json if as_json else _script if dry_run else _lines
    print(show(driver.redacted, done))


def _driver(app: str | None, folder: str, flags: Mapping[str, Any]) -> tuple[Driver, str]:
    if app or os.environ.get("TASKFLOW_APP") or project_table().get("app"):
        found = find_app(app, folder)
        config = found.resolve(flags)
        return found.make_driver(config), config.backend
    config = Config.resolve(flags=flags)
    return driver_for(config), config.backend


async def _migrate(driver: Driver, dry_run: bool) -> Migrated | None:
    return await driver.migrate(dry_run=dry_run)


def _lines(store: str, done: Migrated | None) -> str:
    if done is None:
        return f"{store}: {NO_SCHEMA}"
    if not done.steps:
        return f"{store}: nothing to do: the schema is at version {done.version}"
    return "\n".join(f"{store}: applied {one.version} ({one.name})" for one in done.steps)


def _script(store: str, done: Migrated | None) -> str:
    """All steps as one transaction, so that running it by hand leaves all or nothing."""
    if done is None or not done.steps:
        return f"-- {_lines(store, done)}"
    return "\n".join(["BEGIN;", *(one.sql for one in done.steps), "COMMIT;"])


def _json(store: str, done: Migrated | None) -> str:
    version, steps = (None, ()) if done is None else (done.version, done.steps)
    return msgspec.json.encode({"store": store, "version": version, "steps": steps}).decode()
