"""The users that the how-to pages tell to make may do all that a worker does, and not much more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from taskflow._core.queries import JobQuery
from taskflow._core.records import Change, Claim, Lane, Renewal, Room, Wait
from taskflow._core.states import Event
from taskflow.abc import Driver
from taskflow.drivers.postgres import PostgresDriver
from taskflow.errors import StoreRefusedError
from tests.drivers import postgres_kit, redis_kit
from tests.drivers.redis_server import RedisServer
from tests.drivers.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

HOWTO = Path(__file__).parents[2] / "docs" / "howto"


def block(page: str, start: str) -> str:
    """The block of a page that begins so."""
    blocks = re.findall(r"```\w*\n(.*?)```", (HOWTO / page).read_text(), re.DOTALL)
    (found,) = (text for text in blocks if text.startswith(start))
    return str(found).strip()


async def live(driver: Driver, ids: Iterable[str] = ("a", "b", "c")) -> None:
    """One of each operation."""
    await driver.enqueue([postgres_kit.spec(job_id) for job_id in ids])
    claim = Claim(queues=("default",), rooms={Lane.ASYNC: Room(1)}, lease=60, request_id="r",
                  worker_id="w")  # fmt: skip
    (job,) = (await driver.claim(claim)).jobs
    await driver.extend([Renewal(job.token, None)], 60)
    await driver.settle([Change(token=job.token, event=Event.FAIL)])
    await driver.cancel(["b"])
    await driver.replay(["a"])
    await driver.pause(["default"])
    await driver.resume(["default"])
    await driver.expire(10)
    await driver.prune(10, 0)
    await driver.wait(Wait(queues=("default",), lanes=frozenset({Lane.ASYNC}), timeout=1))
    assert await driver.purge("default") == 2
    assert len((await driver.list_jobs(JobQuery(limit=10))).jobs) >= 1
    assert await driver.stats()
    assert all(await driver.fetch(["b"]))


async def test_on_postgres(postgres_server: PostgresServer) -> None:
    name = postgres_kit.new_schema()
    text = block("postgres.md", "CREATE ROLE").replace("jobs", name)
    async with postgres_kit.admin(postgres_server.url) as db:
        await db.run(text)

    def driver(user: str, table: str = name) -> PostgresDriver:
        url = postgres_server.url.replace("postgres@", f"{name}_{user}@")
        return PostgresDriver(url, queue_table=f"{table}.task_queue")

    await driver("owner").migrate()
    worker = driver("worker")
    assert (await worker.migrate()).steps == ()
    await worker.open()
    try:
        assert all("is off" in warning for warning in await worker.check())
        await live(worker)
    finally:
        await worker.aclose()
    for refused in (driver("worker", f"{name}_more"), driver("owner", f"{name}_more")):
        with pytest.raises(StoreRefusedError, match="permission denied"):
            await refused.migrate()


async def test_on_redis(redis_server: RedisServer) -> None:
    line = block("redis.md", "ACL SETUSER")
    namespace = redis_kit.new_namespace()
    words = line.replace("taskflow", namespace).split()
    async with redis_kit.admin(redis_server.url) as db:
        assert await db.ask(*words) == b"OK"
        url = redis_server.url.replace("//", "//jobs:secret@")
        async with redis_kit.opened(redis_server, namespace, url=url) as driver:
            assert not any("no messages" in warning for warning in await driver.check())
            await live(driver)
        async with redis_kit.opened(redis_server, f"not{namespace}", url=url) as driver:
            with pytest.raises(StoreRefusedError, match=r"jobs:\*\*\*@.*ACL SETUSER"):
                await driver.check()
        await db.ask("ACL", "SETUSER", "jobs", "resetchannels")
        async with redis_kit.opened(redis_server, namespace, url=url) as driver:
            assert any("no messages" in warning for warning in await driver.check())
            await driver.enqueue([redis_kit.spec("quiet")])
            assert redis_kit.ids(await redis_kit.claim(driver)) == ["quiet"]
        await db.ask("ACL", "DELUSER", "jobs")
