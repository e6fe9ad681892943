"""The schema of PostgreSQL: from every version, by many at once, by hand, and when in doubt not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from taskflow.drivers.postgres import PostgresDriver, schema
from taskflow.drivers.postgres.schema import MIGRATIONS
from taskflow.errors import DriverUnavailableError, SchemaMismatchError, StoreRefusedError
from tests.drivers.postgres_catalogue import catalogue, on_version
from tests.drivers.postgres_kit import Admin, admin, claim_one, new_schema, spec
from tests.drivers.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

NEWEST = MIGRATIONS[-1].version


def on(server: PostgresServer, name: str | None = None, url: str | None = None) -> PostgresDriver:
    return PostgresDriver(url or server.url, queue_table=f"{name or new_schema()}.task_queue")


@pytest.fixture
async def db(postgres_server: PostgresServer) -> AsyncIterator[Admin]:
    async with admin(postgres_server.url) as db:
        yield db


@pytest.fixture
async def fresh(postgres_server: PostgresServer, db: Admin) -> list[str]:
    """What a schema is made of that was made at once."""
    driver = on(postgres_server)
    await driver.migrate()
    return await catalogue(db, driver)


def versions(done: object) -> list[int]:
    return [step.version for step in done.steps]  # type: ignore[attr-defined]


async def test_the_catalogue_sees_the_tables(fresh: list[str]) -> None:
    kinds = {text.partition(" ")[0] for text in fresh}
    assert kinds >= {"relation", "column", "index", "constraint", "function", "sequence"}
    assert fresh[-1] == f"{NEWEST} {MIGRATIONS[-1].name}"
    assert len(fresh) > 150


@pytest.mark.parametrize("version", range(NEWEST))
async def test_from_every_version_to_the_newest(
    version: int, postgres_server: PostgresServer, db: Admin, fresh: list[str]
) -> None:
    driver = on(postgres_server)
    await on_version(driver, version)
    if version:
        with pytest.raises(SchemaMismatchError, match=f"version {version},.*taskflow migrate"):
            await driver.open()
    assert versions(await driver.migrate()) == list(range(version + 1, NEWEST + 1))
    assert await catalogue(db, driver) == fresh
    assert versions(await driver.migrate()) == []


@pytest.mark.parametrize("version", [0, 1, NEWEST - 1])
async def test_a_dry_run_changes_nothing_and_may_be_run_by_hand(
    version: int, postgres_server: PostgresServer, db: Admin, fresh: list[str]
) -> None:
    driver = on(postgres_server)
    await on_version(driver, version)
    count = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)"
    before = await db.value(count, *driver._names.schemas)
    shown = await driver.migrate(dry_run=True)
    assert await db.value(count, *driver._names.schemas) == before
    assert versions(shown) == list(range(version + 1, NEWEST + 1))
    await db.run("\n".join(["BEGIN;", *(step.sql for step in shown.steps), "COMMIT;"]))
    assert await catalogue(db, driver) == fresh
    assert versions(await driver.migrate(dry_run=True)) == []


async def test_eight_at_one_time(
    postgres_server: PostgresServer, db: Admin, fresh: list[str]
) -> None:
    name, applied = new_schema(), list[int]()

    async def migrate() -> None:
        applied.extend(versions(await on(postgres_server, name).migrate()))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(migrate)
    assert sorted(applied) == list(range(1, NEWEST + 1))
    assert await catalogue(db, on(postgres_server, name)) == fresh


async def test_two_stores_in_one_new_schema(postgres_server: PostgresServer) -> None:
    """Both want to create it."""
    name = new_schema()
    drivers = [
        PostgresDriver(
            postgres_server.url, queue_table=f"{name}.t{n}", dead_letter_table=f"{name}.d{n}"
        )
        for n in range(4)
    ]
    async with anyio.create_task_group() as group:
        for driver in drivers:
            group.start_soon(driver.migrate)
    for driver in drivers:
        assert versions(await driver.migrate()) == []


async def test_by_whoever_sees_old_snapshots(
    postgres_server: PostgresServer, db: Admin, fresh: list[str]
) -> None:
    """A role's default isolation does not make the second one begin anew."""
    name = new_schema()
    await db.run(
        f"CREATE ROLE {name}_r LOGIN SUPERUSER;"
        f"ALTER ROLE {name}_r SET default_transaction_isolation = 'serializable'"
    )
    url = postgres_server.url.replace("postgres@", f"{name}_r@")
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(on(postgres_server, name, url).migrate)
    assert await catalogue(db, on(postgres_server, name)) == fresh


@pytest.mark.parametrize("name", ["Order", "user", "select", "_"])
async def test_names_that_need_quoting(name: str, postgres_server: PostgresServer) -> None:
    table = f"{new_schema()}_{name}.{name}"
    driver = PostgresDriver(
        postgres_server.url, queue_table=table, dead_letter_table=f"{name}_Dead"
    )
    await driver.migrate()
    await driver.open()
    try:
        await driver.enqueue([spec("a")])
        assert (await claim_one(driver)).token.id == "a"
        assert list(await driver.check())  # the test's server keeps little
    finally:
        await driver.aclose()


async def test_a_newer_schema_is_refused_and_left_alone(
    postgres_server: PostgresServer, db: Admin
) -> None:
    driver = on(postgres_server)
    await on_version(driver, 2)
    ledger = driver._names.fill("{schema}")
    await db.run(f"INSERT INTO {ledger} (version, name) VALUES ({NEWEST + 1}, 'to come')")
    before = await catalogue(db, driver)
    for dry_run in (False, True):
        with pytest.raises(SchemaMismatchError, match="upgrade taskflow") as caught:
            await driver.migrate(dry_run=dry_run)
        assert caught.value.found == f"version {NEWEST + 1}"
    assert await catalogue(db, driver) == before


async def test_a_lock_that_is_never_let_go_is_named(
    postgres_server: PostgresServer, db: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_LIMITS", schema._LIMITS.replace("60s", "50ms"))
    driver = on(postgres_server)
    async with admin(postgres_server.url) as holder:
        await holder.run(f"SELECT pg_advisory_lock({schema._LOCK})")
        pid = await holder.value("SELECT pg_backend_pid()")
        with pytest.raises(DriverUnavailableError, match=rf"process {pid} .*terminate"):
            await driver.migrate()
    assert not await db.value("SELECT to_regnamespace($1) IS NOT NULL", *driver._names.schemas)
    await driver.migrate()


async def test_tables_that_are_in_use_are_waited_for_only_so_long(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_FIRST", schema._FIRST.replace("10s", "50ms"))
    driver = on(postgres_server)
    await on_version(driver, NEWEST - 1)
    last = MIGRATIONS[-1]
    text = "ALTER TABLE {jobs} ADD COLUMN more integer;"
    monkeypatch.setattr(
        schema, "MIGRATIONS",
        (*MIGRATIONS[:-1], schema.Migration(last.version, "0006_more.sql", text)),
    )  # fmt: skip
    async with admin(postgres_server.url) as user:
        await user.run(driver._names.fill("BEGIN; SELECT FROM {jobs}"))
        with pytest.raises(DriverUnavailableError, match=r"0006_more.*in use.*run it again"):
            await driver.migrate()
    assert versions(await driver.migrate()) == [last.version]


async def test_without_the_right_to_create(postgres_server: PostgresServer, db: Admin) -> None:
    name = new_schema()
    await db.run(f"CREATE ROLE {name}_r LOGIN; CREATE SCHEMA {name}")
    url = postgres_server.url.replace("postgres@", f"{name}_r@")
    with pytest.raises(StoreRefusedError, match=f"permission denied for schema {name}"):
        await on(postgres_server, name, url).migrate()
    await db.run(f"GRANT USAGE ON SCHEMA {name} TO {name}_r")
    with pytest.raises(StoreRefusedError, match=f"permission denied for schema {name}"):
        await on(postgres_server, name, url).migrate()
    with pytest.raises(StoreRefusedError, match="permission denied for database postgres"):
        await on(postgres_server, f"{name}_more", url).migrate()
    await db.run(f"GRANT CREATE ON SCHEMA {name} TO {name}_r")
    assert versions(await on(postgres_server, name, url).migrate())[-1] == NEWEST


async def test_a_cancelled_migration_leaves_whole_steps(
    postgres_server: PostgresServer, db: Admin, fresh: list[str]
) -> None:
    driver = on(postgres_server)
    await on_version(driver, 3)
    async with admin(postgres_server.url) as holder:
        await holder.run(f"SELECT pg_advisory_lock({schema._LOCK})")
        async with anyio.create_task_group() as group:
            group.start_soon(driver.migrate)
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            with anyio.fail_after(20):
                while not await db.value(waiting):  # noqa: ASYNC110 - it is in the server
                    await anyio.sleep(0.005)
            group.cancel_scope.cancel()
    assert versions(await driver.migrate()) == [4, 5, 6]
    assert await catalogue(db, driver) == fresh
