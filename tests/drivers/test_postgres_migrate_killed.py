"""A migration that is cut at any command: whole steps stay, and the next run ends what it began."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from taskflow.drivers.postgres import PostgresDriver
from taskflow.drivers.postgres.schema import MIGRATIONS
from taskflow.errors import DriverError
from tests.drivers.postgres_catalogue import catalogue
from tests.drivers.postgres_kit import Admin, admin, new_schema, until
from tests.drivers.servers import PostgresServer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow("migrates many times"),
    pytest.mark.timeout(600 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 90),
]

IS_DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
STEP = 1 if IS_DEEP else 5
"""Every so many-th command is cut; an odd number, so that all kinds of them are."""
KILLS = None if IS_DEEP else 4
"""How many processes are killed at most: each takes a second to start."""
GATE = 77

TRIGGER = f"""
CREATE SEQUENCE public.command;
CREATE TABLE public.cut (at bigint, how text);
CREATE FUNCTION public.cut() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    one public.cut;
    this bigint;
BEGIN
    IF current_setting('application_name') = 'taskflow' THEN
        this := nextval('public.command');
        SELECT * INTO one FROM public.cut WHERE at = this;
        IF one.how = 'end' THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
        ELSIF one.how = 'wait' THEN
            PERFORM pg_advisory_lock_shared({GATE});
        END IF;
    END IF;
END $$;
CREATE EVENT TRIGGER cut ON ddl_command_start EXECUTE FUNCTION public.cut();
"""
WAITING = f"SELECT count(*) FROM pg_locks WHERE objid = {GATE} AND NOT granted"
MIGRATE = """
import sys, anyio
from taskflow.drivers.postgres import PostgresDriver
anyio.run(PostgresDriver(sys.argv[1], queue_table=sys.argv[2] + ".task_queue").migrate)
"""
_numbers = itertools.count()


class Cutter:
    """A database in which every command of a migration is counted, and one of them is cut."""

    def __init__(self, url: str, db: Admin) -> None:
        self.url, self.db = url, db

    def driver(self, schema: str | None = None) -> PostgresDriver:
        return PostgresDriver(self.url, queue_table=f"{schema or new_schema()}.task_queue")

    async def cut_at(self, number: int, how: str) -> None:
        await self.db.run(
            "SELECT setval('public.command', 1, false); DELETE FROM public.cut;"
            f"INSERT INTO public.cut VALUES ({number}, '{how}')"
        )

    async def commands(self) -> int:
        return int(await self.db.value("SELECT last_value FROM public.command"))

    async def ended(self, driver: PostgresDriver) -> list[str]:
        """What a schema is made of when its migration has been run once more."""
        await self.cut_at(0, "")
        await driver.migrate()
        return await catalogue(self.db, driver)


@asynccontextmanager
async def cutting(server: PostgresServer) -> AsyncIterator[Cutter]:
    """In a database of its own: the trigger is the whole database's."""
    url = await anyio.to_thread.run_sync(
        server.create_database, f"cut{os.getpid()}_{next(_numbers)}"
    )
    async with admin(url) as db:
        await db.run(TRIGGER)
        yield Cutter(url, db)


async def fresh(cutter: Cutter) -> tuple[list[str], int]:
    """What is to come out, and how many commands make it."""
    await cutter.cut_at(0, "")
    driver = cutter.driver()
    await driver.migrate()
    count = await cutter.commands()
    assert count > 60
    return await catalogue(cutter.db, driver), count


async def test_by_the_server_at_any_command(postgres_server: PostgresServer) -> None:
    async with cutting(postgres_server) as cutter:
        whole, count = await fresh(cutter)
        steps = set[int]()
        for number in range(1, count + 1, STEP):
            await cutter.cut_at(number, "end")
            driver = cutter.driver()
            with pytest.raises(DriverError) as caught:
                await driver.migrate()
            assert caught.value.retryable, number
            assert await cutter.commands() == number
            steps.add(len((await driver.migrate(dry_run=True)).steps))
            assert await cutter.ended(driver) == whole, number
        assert steps == set(range(1, len(MIGRATIONS) + 1)) or not IS_DEEP
        assert len(steps) > 2


async def test_again_and_again(postgres_server: PostgresServer) -> None:
    """Each run is cut one command later, on the same schema."""
    async with cutting(postgres_server) as cutter:
        whole, count = await fresh(cutter)
        driver = cutter.driver()
        for number in range(2, count, STEP):
            await cutter.cut_at(number, "end")
            try:
                await driver.migrate()
            except DriverError:
                continue
            break
        assert await cutter.ended(driver) == whole


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_by_a_kill_of_the_process(postgres_server: PostgresServer) -> None:
    async with cutting(postgres_server) as cutter, admin(cutter.url) as gate:
        whole, count = await fresh(cutter)
        numbers = range(3, count + 1, 1 if KILLS is None else count // KILLS)
        for number in numbers:
            schema = new_schema()
            await cutter.cut_at(number, "wait")
            await gate.run(f"SELECT pg_advisory_lock({GATE})")
            with migrating(cutter.url, schema) as process:

                async def waits() -> bool:
                    return bool(await cutter.db.value(WAITING))

                await until(waits, 60)
                process.send_signal(signal.SIGKILL)
            await gate.run(f"SELECT pg_advisory_unlock({GATE})")
            assert process.returncode == -signal.SIGKILL
            # The server ends the statement that it has, and nothing of it stays.
            assert await cutter.ended(cutter.driver(schema)) == whole, number


def migrating(url: str, schema: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", MIGRATE, url, schema], cwd=Path(__file__).parents[2]
    )
