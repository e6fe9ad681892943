"""Dispatching within a transaction of the caller's: SQLAlchemy on asyncpg."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from taskflow import App, AsyncTask, Unique
from taskflow.errors import (
    ConfigError,
    DriverUnavailableError,
    JobConflictError,
    StoreRefusedError,
    UsageError,
)
from tests.drivers.postgres_kit import connected, opened_app
from tests.drivers.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def anyio_backend() -> str:
    """The only loop that asyncpg has connections on."""
    return "asyncio"


class Mail(AsyncTask[str]):
    kind = "alchemy.Mail"
    data: bytes = bytes(range(256))

    async def execute(self) -> str:
        return ""


class Base(DeclarativeBase):
    """The user's models."""


class Order(Base):
    __tablename__ = "alchemy_orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Broken(Exception):
    """What the user's code raises."""


@pytest.fixture
async def app(postgres_server: PostgresServer) -> AsyncIterator[App[None]]:
    async with opened_app(postgres_server) as app:
        yield app


@asynccontextmanager
async def engine_on(server: PostgresServer, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(
        server.url.replace("postgresql:", "postgresql+asyncpg:"), poolclass=NullPool, **options
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture
async def engine(postgres_server: PostgresServer) -> AsyncIterator[AsyncEngine]:
    async with engine_on(postgres_server) as engine:
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.drop_all)
            await conn.run_sync(Base.metadata.create_all)
        yield engine


async def ids(app: App[Any]) -> list[str]:
    return sorted(record.id for record in (await app.jobs()).jobs)


async def orders(engine: AsyncEngine) -> int:
    async with engine.connect() as conn:
        return int((await conn.execute(text("SELECT count(*) FROM alchemy_orders"))).scalar_one())


# ---- connections


async def test_a_dispatch_as_the_very_first_thing_is_rolled_back(
    app: App[None], engine: AsyncEngine
) -> None:
    async with engine.connect() as conn:
        await Mail().dispatch(connection=conn)
        assert conn.in_transaction()
        await conn.rollback()
    async with engine.connect() as conn:
        await app.dispatch_many([Mail(), Mail()], connection=conn)
    with pytest.raises(Broken):
        async with engine.begin() as conn:
            await Mail().dispatch(connection=conn)
            raise Broken
    assert await ids(app) == []


async def test_a_dispatch_as_the_very_first_thing_is_committed(
    app: App[None], engine: AsyncEngine
) -> None:
    async with engine.begin() as conn:
        await Mail().options(id="a").dispatch(connection=conn)
        assert await ids(app) == []
        await conn.execute(text("INSERT INTO alchemy_orders VALUES (1)"))
    async with engine.connect() as conn:
        await Mail().options(id="b").dispatch(connection=conn)
        await conn.commit()
        await Mail().options(id="c").dispatch(connection=conn)
        await conn.rollback()
        await Mail().options(id="d").dispatch(connection=conn)
        await conn.commit()
    assert await ids(app) == ["a", "b", "d"]
    assert await orders(engine) == 1
    record = await app.job("a")
    assert record is not None
    (fetched,) = await app.port.fetch(["a"])
    assert fetched is not None
    assert app.codec.decode(fetched.payload, Mail) == Mail()


async def test_savepoints_are_kept(app: App[None], engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        with pytest.raises(Broken):
            async with conn.begin_nested():
                await Mail().options(id="inner").dispatch(connection=conn)
                raise Broken
        async with conn.begin_nested():
            await Mail().options(id="kept").dispatch(connection=conn)
        with pytest.raises(JobConflictError, match="kept"):
            await Mail(data=b"").options(id="kept").dispatch(connection=conn)
        await Mail().options(id="outer").dispatch(connection=conn)
    assert await ids(app) == ["kept", "outer"]


async def test_autocommit_stores_at_once(app: App[None], postgres_server: PostgresServer) -> None:
    async with (
        engine_on(postgres_server, isolation_level="AUTOCOMMIT") as engine,
        engine.connect() as conn,
    ):
        await Mail().options(id="a").dispatch(connection=conn)
    assert await ids(app) == ["a"]


async def test_a_strict_isolation_is_kept(app: App[None], postgres_server: PostgresServer) -> None:
    async with (
        engine_on(postgres_server, isolation_level="SERIALIZABLE") as engine,
        engine.connect() as conn,
    ):
        with pytest.raises(StoreRefusedError, match="use READ COMMITTED"):
            await Mail().options(unique=Unique("key")).dispatch(connection=conn)
        await conn.rollback()
        await Mail().options(id="a").dispatch(connection=conn)
        await conn.commit()
    assert await ids(app) == ["a"]


# ---- sessions


async def test_a_session_commits_and_rolls_back(app: App[None], engine: AsyncEngine) -> None:
    sessions = async_sessionmaker(engine)
    async with sessions() as session:
        await Mail().options(id="lost").dispatch(connection=session)
    with pytest.raises(Broken):
        async with sessions.begin() as session:
            await Mail().options(id="lost too").dispatch(connection=session)
            session.add(Order(id=1))
            raise Broken
    assert (await ids(app), await orders(engine)) == ([], 0)
    async with sessions.begin() as session:
        session.add(Order(id=1))
        await Mail().options(id="a").dispatch(connection=session)
        await app.dispatch_many([Mail().options(id="b")], connection=session)
        assert (await ids(app), await orders(engine)) == ([], 0)
    assert (await ids(app), await orders(engine)) == (["a", "b"], 1)


async def test_a_flush_that_fails_takes_the_job_along(app: App[None], engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        await conn.execute(text("INSERT INTO alchemy_orders VALUES (1)"))
    with pytest.raises(Exception, match="alchemy_orders_pkey"):
        async with AsyncSession(engine) as session, session.begin():
            session.add(Order(id=1))
            await Mail().dispatch(connection=session)
    assert await ids(app) == []


async def test_a_scoped_session_is_one(app: App[None], engine: AsyncEngine) -> None:
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    await Mail().options(id="a").dispatch(connection=scoped)
    await scoped.commit()
    await Mail().options(id="b").dispatch(connection=scoped)
    await scoped.rollback()
    await scoped.remove()
    assert await ids(app) == ["a"]


# ---- what goes wrong


async def test_a_broken_connection_and_what_sqlalchemy_refuses_are_named(
    app: App[None], engine: AsyncEngine, postgres_server: PostgresServer
) -> None:
    conn = await engine.connect()
    await conn.close()
    with pytest.raises(UsageError, match="closed"):
        await Mail().dispatch(connection=conn)
    async with engine.connect() as conn:
        raw: Any = (await conn.get_raw_connection()).driver_connection
        async with connected(postgres_server) as other:
            await other.execute("SELECT pg_terminate_backend($1)", raw.get_server_pid())
        with pytest.raises(DriverUnavailableError):
            await Mail().dispatch(connection=conn)
    async with AsyncSession() as session:
        with pytest.raises(UsageError, match="connection: "):
            await Mail().dispatch(connection=session)
    assert await ids(app) == []


async def test_after_an_error_sqlalchemy_rolls_back_and_goes_on(
    app: App[None], engine: AsyncEngine
) -> None:
    async with engine.connect() as conn:
        await conn.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(StoreRefusedError, match="read-only"):
            await Mail().dispatch(connection=conn)
        await conn.rollback()
        await Mail().options(id="a").dispatch(connection=conn)
        await conn.commit()
    assert await ids(app) == ["a"]


async def test_sync_connections_are_named(app: App[None], engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        with pytest.raises(ConfigError, match="sqlalchemy.engine.base.Connection will not do"):
            await Mail().dispatch(connection=conn.sync_connection)
    with pytest.raises(ConfigError, match="AsyncEngine will not do"):
        await Mail().dispatch(connection=engine)


async def test_a_listener_of_the_users_sees_the_beginning_only(
    app: App[None], engine: AsyncEngine
) -> None:
    statements: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    async with engine.begin() as conn:
        await Mail().dispatch(connection=conn)
        await Mail().dispatch(connection=conn)
    assert statements == ["SELECT 1"]


def test_taskflow_does_not_import_sqlalchemy() -> None:
    code = (
        "import sys, taskflow, taskflow.drivers.postgres.borrowed;"
        "sys.exit(any(name.startswith('sqlalchemy') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
