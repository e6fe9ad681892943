"""Behind PgBouncer in transaction mode: every call may be on another session than the last one."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

import anyio
import pytest

from taskflow import App, AsyncTask, JobState, Worker
from taskflow._core.states import Event
from taskflow.drivers.postgres import PostgresDriver
from tests.drivers.postgres_kit import claim, ids, new_schema, settle, spec
from tests.drivers.servers import READY, PostgresServer, free_port, program

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow("functions are compiled in each session"),
    pytest.mark.timeout(120),
]

SESSIONS = 2
"""Fewer than callers at one time."""
CONFIG = """
[databases]
postgres = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
logfile = {folder}/pgbouncer.log
"""


class PooledDouble(AsyncTask[int]):
    n: int

    async def execute(self) -> int:
        return 2 * self.n


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a pooler in front of the server."""
    path = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if path is None:
        pytest.skip("PgBouncer is not installed")
    port, folder = free_port(), postgres_server.folder
    config = folder / f"pgbouncer-{port}.ini"
    config.write_text(
        CONFIG.format(server=postgres_server.port, port=port, sessions=SESSIONS, folder=folder)
    )
    process = subprocess.Popen([*postgres_server.run_as, path, "-q", str(config)], cwd="/")
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        _await_ready(port)
        yield url
    finally:
        process.terminate()
        process.wait(READY)


def _await_ready(port: int) -> None:
    isready = program("pg_isready")
    assert isready is not None
    deadline = time.monotonic() + READY
    while subprocess.run(
        [isready, "-q", "-U", "postgres", "-h", "127.0.0.1", "-p", str(port)], check=False, cwd="/"
    ).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def behind(pooler: str, schema: str) -> PostgresDriver:
    return PostgresDriver(pooler, queue_table=f"{schema}.task_queue", statement_cache_size=0)


async def test_it_is_migrated_and_works(pooler: str) -> None:
    schema = new_schema()
    await behind(pooler, schema).migrate()
    async with App(driver=behind(pooler, schema), concurrency=10) as app:
        handles = await app.dispatch_many([PooledDouble(n=n) for n in range(200)])
        async with anyio.create_task_group() as group:
            worker = Worker(app, queues=("default",))
            await group.start(worker.run)
            with anyio.fail_after(90):
                assert [await one.result() for one in handles] == [2 * n for n in range(200)]
            worker.stop()
        (stats,) = await app.stats()
        assert stats.counts == {JobState.COMPLETED: 200}


async def test_many_callers_share_few_sessions(pooler: str) -> None:
    schema = new_schema()
    driver = behind(pooler, schema)
    await driver.migrate()
    await driver.open()
    done: list[str] = []

    async def caller(number: int) -> None:
        await driver.enqueue([spec(f"{number}-{n}") for n in range(10)])
        jobs = (await claim(driver, 10)).jobs
        for job in jobs:
            await settle(driver, job, Event.COMPLETE)
        done.extend(job.token.id for job in jobs)

    try:
        with anyio.fail_after(90):
            async with anyio.create_task_group() as group:
                for number in range(8):
                    group.start_soon(caller, number)
        done += ids(await claim(driver, 100))
        assert sorted(done) == sorted(f"{number}-{n}" for number in range(8) for n in range(10))
    finally:
        await driver.aclose()
