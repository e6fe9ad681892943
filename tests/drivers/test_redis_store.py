"""Redis servers that refuse or fill up, scripts that are gone, and what is left behind."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import anyio
import pytest

from taskflow._core.flows import Edge
from taskflow._core.records import (
    Accepted,
    Cancelled,
    Extended,
    Lane,
    Progress,
    Renewal,
    Unique,
    Verdict,
)
from taskflow._core.states import Event, JobState
from taskflow.config import Config
from taskflow.drivers import driver_for
from taskflow.drivers.redis import RedisDriver
from taskflow.drivers.redis.address import read_url
from taskflow.drivers.redis.health import refusal, warnings
from taskflow.errors import (
    ConfigError,
    DriverUnavailableError,
    StoreFullError,
    StoreRefusedError,
    UsageError,
)
from taskflow.testing.contract import VirtualClock
from tests.drivers.redis_kit import (
    admin,
    claim,
    claim_one,
    ids,
    namespace_of,
    opened,
    record,
    settle,
    spec,
)
from tests.drivers.redis_server import RedisServer, redis_running
from tests.drivers.servers import free_port

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@pytest.fixture
async def driver(redis_server: RedisServer) -> AsyncIterator[RedisDriver]:
    async with opened(redis_server) as driver:
        yield driver


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


# ---- nothing is left behind


async def a_bit_of_everything(driver: RedisDriver, clock: VirtualClock) -> None:
    """Jobs in every state, and the sets that go with them."""
    key = Unique("key")
    await driver.enqueue([
        spec("done", result_ttl=HOUR), spec("failed", failed_ttl=HOUR), spec("asked"),
        spec("crashed", max_attempts=5), spec("expires", expires_in=60.0, queue="slow"),
        spec("later", delay=5 * HOUR), spec("keyed", unique=key), spec("held", unique=key),
        spec("next", after=(Edge("done"), Edge("failed"))), spec("last", after=(Edge("next"),)),
        spec("thrown", queue="other", lane=Lane.THREAD), spec("waits", after=(Edge("later"),)),
        *(spec(f"many {n}", after=(Edge("asked"),)) for n in range(150)),
    ])  # fmt: skip
    jobs = {job.token.id: job for job in (await claim(driver, 5)).jobs}
    assert list(jobs) == ["done", "failed", "asked", "crashed", "keyed"]
    await driver.extend([Renewal(jobs["done"].token, Progress(0.5))], 60)
    await settle(driver, jobs["done"], Event.COMPLETE, result=b"x")
    await settle(driver, jobs["failed"], Event.FAIL, reason="exhausted")
    assert await driver.cancel(["asked", "nobody"]) == [Cancelled.REQUESTED, Cancelled.UNKNOWN]
    await settle(driver, jobs["asked"], Event.RELEASE)
    clock.shift(HOUR / 2)
    assert sorted(await driver.expire(100)) == ["crashed", "keyed"]
    await settle(driver, await claim_one(driver), Event.RETRY, delay=HOUR)


async def test_what_has_ended_and_is_pruned_leaves_no_key(
    redis_server: RedisServer, clock: VirtualClock
) -> None:
    async with opened(redis_server, clock=clock) as driver, admin(redis_server.url) as db:
        await a_bit_of_everything(driver, clock)
        assert await db.keys(driver) >= {"row", "spec", "all", "seq", "counts", "next:asked"}
        await driver.pause(["default"])
        for queue in ("default", "other", "slow"):
            await driver.purge(queue)
        for _ in range(3):
            await driver.expire(1000)
        await driver.resume(["default"])
        clock.shift(2_592_000 + HOUR)
        while await driver.prune(500, 600.0):
            pass
        assert await driver.stats() == []
        assert await db.keys(driver) == set()


async def test_jobs_that_are_refused_leave_no_key(
    redis_server: RedisServer, driver: RedisDriver
) -> None:
    (reply,) = await driver.enqueue([spec("a", after=(Edge("nobody"),))])
    assert reply.verdict is Accepted.ORPHAN
    async with admin(redis_server.url) as db:
        assert await db.keys(driver) == set()


async def test_namespaces_never_see_each_other(redis_server: RedisServer) -> None:
    async with opened(redis_server) as one, opened(redis_server) as other:
        await one.enqueue([spec("a")])
        assert ids(await claim(other)) == []
        assert await other.fetch(["a"]) == [None]
        assert ids(await claim(one)) == ["a"]


# ---- scripts


async def test_scripts_that_the_server_forgot_are_sent_again(
    redis_server: RedisServer, driver: RedisDriver
) -> None:
    async with admin(redis_server.url) as db:
        for n in range(3):
            await db.ask("SCRIPT", "FLUSH")
            (reply,) = await driver.enqueue([spec(str(n))])
            assert reply.verdict is Accepted.ACCEPTED
        await db.ask("SCRIPT", "FLUSH")
        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(driver.enqueue, [spec(f"at once {n}")])
        assert len(ids(await claim(driver, 50))) == 23


async def test_a_large_call_takes_little_of_the_servers_time(
    redis_server: RedisServer, driver: RedisDriver
) -> None:
    """Nobody waits long for anybody: one call of 500 jobs is far below 100 ms."""
    async with admin(redis_server.url) as db:
        await db.ask("CONFIG", "SET", "slowlog-log-slower-than", "100000")
        await db.ask("SLOWLOG", "RESET")
        await driver.enqueue([spec(str(n)) for n in range(500)])
        jobs = (await claim(driver, 500)).jobs
        assert len(jobs) == 500
        for job in jobs[:1]:
            await settle(driver, job, Event.COMPLETE)
        await driver.purge("default")
        slow = [entry[3][0] for entry in await db.ask("SLOWLOG", "GET")]
        assert [words for words in slow if words == b"EVALSHA"] == []


# ---- a full store


async def test_in_a_full_store_dispatch_says_so_and_draining_goes_on(clock: VirtualClock) -> None:
    with redis_running(maxmemory_policy="noeviction") as server:
        async with opened(server, clock=clock) as driver, admin(server.url) as db:
            await driver.enqueue([spec(str(n), payload=b"x" * 10_000) for n in range(40)])
            await driver.enqueue([spec("asked"), spec("later", delay=60.0)])
            await db.ask("CONFIG", "SET", "maxmemory", "1mb")
            with pytest.raises(StoreFullError, match="maxmemory"):
                await driver.enqueue([spec("more")])
            assert await driver.fetch(["more"]) == [None]
            await drain_all(driver, clock)
            await driver.prune(1000, 0.0)
            await db.ask("CONFIG", "SET", "maxmemory", "0")
            (reply,) = await driver.enqueue([spec("more")])
            assert reply.verdict is Accepted.ACCEPTED


async def drain_all(driver: RedisDriver, clock: VirtualClock) -> None:
    jobs = (await claim(driver, 39)).jobs
    assert len(jobs) == 39
    replies = await driver.extend([Renewal(job.token, Progress(0.1)) for job in jobs], 60)
    assert set(replies) == {Extended.RENEWED}
    for job in jobs:
        assert (await settle(driver, job, Event.COMPLETE, result=b"r")).verdict is Verdict.APPLIED
    assert await driver.cancel(["asked"]) == [Cancelled.CANCELLED]
    await driver.pause(["default"])
    await driver.resume(["default"])
    await claim_one(driver)
    clock.shift(600.0)
    assert await driver.expire(10) == ["39"]
    assert ids(await claim(driver, 5)) == ["39", "later"]
    assert (await record(driver, "later")).state is JobState.RUNNING


# ---- what is refused


@pytest.mark.parametrize(
    "url", ["redis://h:x/0", "redis://h:99999/0", "redis://h/abc", "redis://h/0?nonsense=1",
            "redis+sentinel://a,b", "redis+cluster://a,b/1", "redis://u:secret@h/-1"],
)  # fmt: skip
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisDriver(url)
    assert "secret" not in str(caught.value)


def test_urls() -> None:
    one = read_url(f"rediss://u%40:p%2F@host/3?ssl_check_hostname=no&ssl_ca_certs={__file__}")
    assert (one.hosts, one.db) == ((("host", 6379),), 3)
    assert one.login == {"username": "u@", "password": "p/"}
    assert one.tls == {"ssl_check_hostname": False, "ssl_ca_certs": __file__}
    one = read_url("redis://h", password="p", db=2)
    assert (one.db, one.login, one.tls) == (2, {"password": "p"}, None)
    one = read_url("redis://:own@h/1", password="p", db=2)
    assert (one.db, one.login) == (1, {"password": "own"})
    one = read_url("unix:///run/redis.sock?db=4&password=p")
    assert (one.kind, one.path, one.db, one.login) == (
        "unix",
        "/run/redis.sock",
        4,
        {"password": "p"},
    )
    one = read_url("redis+sentinel://:p@a,[::1]:5/main/2?sentinel_password=s")
    assert (one.kind, one.master, one.db) == ("sentinel", "main", 2)
    assert one.hosts == (("a", 26379), ("::1", 5))
    assert (one.login, one.sentinel_login) == ({"password": "p"}, {"password": "s"})
    assert "p@" not in one.shown


async def test_nobody_there_wrong_password_no_such_database(redis_server: RedisServer) -> None:
    driver = RedisDriver(f"redis://u:secret@127.0.0.1:{free_port()}")
    with pytest.raises(DriverUnavailableError, match=r"u:\*\*\*@127") as caught:
        await driver.open()
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreRefusedError, match="no such database"):
        await RedisDriver(redis_server.url.removesuffix("/0"), db=99).open()


async def test_passwords() -> None:
    with redis_running(requirepass="right") as server:
        place = server.url.removeprefix("redis://")
        for url, words in ((f"redis://:secret@{place}", "wrong"), (server.url, "needed")):
            with pytest.raises(StoreRefusedError, match=words) as caught:
                await RedisDriver(url).open()
            assert "secret" not in str(caught.value)
            assert caught.value.__cause__ is None
        for options in ({"url": f"redis://:right@{place}"}, {"password": "right"}):
            async with opened(server, **options) as driver:
                await driver.enqueue([spec("a")])
                assert "right" not in driver.redacted + repr(driver)


async def test_a_user_without_rights(redis_server: RedisServer) -> None:
    async with admin(redis_server.url) as db:
        await db.ask("ACL", "SETUSER", "poor", "on", ">pw", "~*", "+@read", "+info", "+client")
    url = redis_server.url.replace("redis://", "redis://poor:pw@")
    async with opened(redis_server, url=url) as driver:
        with pytest.raises(StoreRefusedError, match="permission"):
            await driver.enqueue([spec("a")])


async def test_a_server_that_throws_jobs_away_is_refused() -> None:
    with redis_running(maxmemory_policy="allkeys-lru") as server:
        with pytest.raises(StoreRefusedError, match=r"allkeys-lru.*noeviction"):
            await RedisDriver(server.url).open()
        async with admin(server.url) as db:
            await db.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            async with opened(server) as driver:
                assert any("appendonly" in line for line in await driver.check())
                await db.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
                with pytest.raises(StoreRefusedError, match="allkeys-random"):
                    await driver.check()


async def test_a_replica_is_refused(redis_server: RedisServer) -> None:
    with (
        redis_running(replicaof=f"127.0.0.1 {redis_server.port}") as server,
        pytest.raises(StoreRefusedError, match="replica"),
    ):
        await RedisDriver(server.url).open()


def test_old_servers_and_what_is_warned_of() -> None:
    problem = refusal({"redis_version": "6.0.16"}, "redis://h")
    assert problem is not None
    assert "6.0.16 is too old" in str(problem)
    assert refusal({"redis_version": "6.2.0"}, "redis://h") is None
    assert refusal({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, "redis://h") is None
    assert warnings({"aof_enabled": "1", "maxmemory_policy": "noeviction"}) == []
    assert len(warnings({"aof_enabled": "0", "maxmemory_policy": "volatile-lru"})) == 2


async def test_what_answers_is_no_redis() -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(StoreRefusedError, match="no Redis"):
            await RedisDriver(f"redis://127.0.0.1:{port}").open()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("module", ["redis", "hiredis"])
def test_a_missing_client_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("taskflow.drivers.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install taskflow-anyio\[redis\]") as caught:
        driver_for(Config(url="redis://u:secret@h/0"))
    assert "secret" not in str(caught.value)


# ---- ways in


async def test_settings_and_unix_sockets(redis_server: RedisServer) -> None:
    config = Config(redis_url=f"unix://{redis_server.socket}", redis_db=1, redis_namespace="s")
    driver = driver_for(config)
    await driver.open()
    try:
        with pytest.raises(UsageError, match="open already"):
            await driver.open()
        await driver.enqueue([spec("a")])
        async with opened(redis_server, "s", db=1, url=redis_server.url[:-2]) as other:
            assert namespace_of(other) == "s"
            assert [one is not None for one in await other.fetch(["a"])] == [True]
    finally:
        await driver.aclose()
