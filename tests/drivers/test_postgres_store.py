"""Schema, servers that refuse, connections that break, and plans."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import anyio
import pytest

from taskflow._core.records import Accepted
from taskflow._core.states import Event
from taskflow.config import Config
from taskflow.drivers import driver_for
from taskflow.drivers.postgres import PostgresDriver
from taskflow.errors import (
    ConfigError,
    DriverError,
    DriverUnavailableError,
    OutcomeUnknownError,
    SchemaMismatchError,
    StoreRefusedError,
)
from tests.drivers.postgres_kit import (
    admin,
    claim,
    claim_one,
    ids,
    new_schema,
    opened,
    schema_of,
    settle,
    spec,
)
from tests.drivers.servers import PostgresServer, free_port

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

T = TypeVar("T")


@pytest.fixture
async def driver(postgres_server: PostgresServer) -> AsyncIterator[PostgresDriver]:
    async with opened(postgres_server) as driver:
        yield driver


def on(server: PostgresServer, schema: str) -> PostgresDriver:
    return PostgresDriver(server.url, queue_table=f"{schema}.task_queue")


# ---- the schema


async def test_a_missing_old_or_newer_schema_is_named(postgres_server: PostgresServer) -> None:
    driver = on(postgres_server, new_schema())
    with pytest.raises(SchemaMismatchError, match="missing.*run `taskflow migrate`"):
        await driver.open()
    await driver.migrate()
    ledger = f"{schema_of(driver)}.task_queue_schema"
    async with admin(postgres_server.url) as db:
        await db.run(f"UPDATE {ledger} SET version = version + 90")
        with pytest.raises(SchemaMismatchError, match="upgrade taskflow"):
            await driver.open()
        await db.run(f"DELETE FROM {ledger}")
        with pytest.raises(SchemaMismatchError, match="version 0.*run `taskflow migrate`"):
            await driver.open()


# ---- what is refused


@pytest.mark.parametrize(
    "options", [{"queue_table": 'x"; DROP'}, {"queue_table": "a.b.c"}, {"queue_table": "x" * 41},
                {"dead_letter_table": "task_queue_finished"}, {"queue_table": "pg_x.y"}],
)  # fmt: skip
def test_bad_table_names_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"table"):
        PostgresDriver("postgresql://h/d", **options)  # type: ignore[arg-type]


async def test_no_server_no_database_no_role(postgres_server: PostgresServer) -> None:
    place = f"127.0.0.1:{free_port()}"
    with pytest.raises(DriverUnavailableError, match=r"u:\*\*\*@"):
        await PostgresDriver(f"postgresql://u:secret@{place}/x").open()
    place = f"127.0.0.1:{postgres_server.port}"
    for url in (f"postgresql://postgres:secret@{place}/nowhere", f"postgresql://no:secret@{place}"):
        with pytest.raises(StoreRefusedError, match="does not exist") as caught:
            await PostgresDriver(url).open()
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


async def test_a_role_without_rights(postgres_server: PostgresServer) -> None:
    async with opened(postgres_server) as owner, admin(postgres_server.url) as db:
        role = f"poor_{schema_of(owner)}"
        await db.run(
            f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema_of(owner)} TO {role}"
        )
        url = postgres_server.url.replace("postgres@", f"{role}@")
        stranger = PostgresDriver(url, queue_table=f"{schema_of(owner)}.task_queue")
        with pytest.raises(StoreRefusedError, match="permission denied"):
            await stranger.open()
        with pytest.raises(StoreRefusedError, match="permission denied"):
            await PostgresDriver(url, queue_table=f"{new_schema()}.task_queue").migrate()


async def test_a_table_that_is_dropped_under_us(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    async with admin(postgres_server.url) as db:
        await db.run(f"DROP SCHEMA {schema_of(driver)} CASCADE")
    with pytest.raises(SchemaMismatchError, match="taskflow migrate"):
        await driver.enqueue([spec("a")])


def test_a_missing_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("taskflow.drivers.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigError, match=r"pip install taskflow-anyio\[postgres\]") as caught:
        driver_for(Config(url="postgresql://u:secret@h/d"))
    assert "secret" not in str(caught.value)


# ---- connections


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Send the same call again until it is answered."""
    while True:
        try:
            return await call()
        except (DriverUnavailableError, OutcomeUnknownError):
            await anyio.sleep(0.001)


async def enqueue_and_work(driver: PostgresDriver, done: list[str]) -> None:
    for n in range(30):
        (reply,) = await insist(lambda n=n: driver.enqueue([spec(str(n))]))  # type: ignore[misc]
        assert reply.verdict in {Accepted.ACCEPTED, Accepted.DUPLICATE}
        claimed = await insist(lambda n=n: claim(driver, request_id=f"r{n}"))  # type: ignore[misc]
        for job in claimed.jobs:
            await insist(lambda job=job: settle(driver, job, Event.COMPLETE))  # type: ignore[misc]
            done.append(job.token.id)


@pytest.mark.slow("a new connection after every other job")
@pytest.mark.timeout(180)
async def test_every_connection_is_ended_again_and_again(postgres_server: PostgresServer) -> None:
    """Nothing is lost and nothing is there twice."""
    done, ended = list[str](), 0
    async with (
        opened(postgres_server) as driver, admin(postgres_server.url) as db,
        anyio.create_task_group() as group,
    ):  # fmt: skip
        group.start_soon(enqueue_and_work, driver, done)
        with anyio.fail_after(150):
            while len(done) < 28:
                ended += await db.terminate_all()
                seen = len(done)
                await anyio.sleep(seen % 7 * 0.003)  # at another point each time
                while len(done) == seen < 30:
                    await anyio.sleep(0.001)
    assert ended > 3
    assert done == [str(n) for n in range(30)]


async def test_a_cancelled_call_leaves_the_pool_as_good_as_new(
    postgres_server: PostgresServer,
) -> None:
    async with opened(postgres_server, max_pool_size=2, min_pool_size=1) as driver:
        for n in range(60):
            with anyio.move_on_after(n * 0.0002):
                await driver.enqueue([spec(str(n))])
            (reply,) = await driver.enqueue([spec(f"after {n}")])
            assert reply.id == f"after {n}"
        names = [str(n) for n in range(60)] + [f"after {n}" for n in range(60)]
        stored = [one for one in await driver.fetch(names) if one is not None]
        assert len(stored) >= 60
        assert len(ids(await claim(driver, 500))) == len(stored)


async def test_what_the_database_prefers_is_not_asked(postgres_server: PostgresServer) -> None:
    async with admin(postgres_server.url) as db:
        await db.run("ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'")
        try:
            async with opened(postgres_server) as driver:
                ((found,),) = await driver._call(
                    lambda store: store.rows("SELECT current_setting('transaction_isolation')")
                )
        finally:
            await db.run("ALTER DATABASE postgres RESET default_transaction_isolation")
    assert found == "read committed"


async def test_a_blocked_call_is_given_up_and_its_connection_with_it(
    postgres_server: PostgresServer,
) -> None:
    async with opened(postgres_server, call_timeout=1) as driver:
        async with admin(postgres_server.url) as db:
            await db.run(f"BEGIN; LOCK TABLE {schema_of(driver)}.task_queue")
            with pytest.raises(DriverError):
                await driver.enqueue([spec("a")])
            await db.run("ROLLBACK")
        (reply,) = await driver.enqueue([spec("b")])
        assert reply.verdict is Accepted.ACCEPTED


async def test_without_session_state_as_behind_a_pooler(postgres_server: PostgresServer) -> None:
    async with opened(postgres_server, statement_cache_size=0) as driver:
        await driver.enqueue([spec("a"), spec("b")])
        assert ids(await claim(driver, 1)) == ["a"]
        await settle(driver, await claim_one(driver), Event.COMPLETE)


async def test_a_twin_has_connections_of_its_own(driver: PostgresDriver) -> None:
    twin = driver.twin()
    await twin.open()
    try:
        await driver.enqueue([spec("a")])
        assert ids(await claim(twin)) == ["a"]
    finally:
        await twin.aclose()
    with pytest.raises(DriverUnavailableError, match="closed"):
        await claim(twin)
