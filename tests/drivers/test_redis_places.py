"""Redis behind Sentinels, on a cluster, and over TLS."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from taskflow._core.records import Accepted, Wait
from taskflow._core.states import Event
from taskflow.drivers.redis import RedisDriver
from taskflow.errors import DriverError, DriverUnavailableError, OutcomeUnknownError
from tests.drivers.redis_kit import Admin, admin, claim, claim_one, ids, opened, settle, spec
from tests.drivers.redis_server import RedisServer, redis_running
from tests.drivers.servers import free_port, missing, program

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture(autouse=True)
def _has_redis(redis_server: RedisServer) -> None:
    """Skipped where there is none."""


async def insist(driver: RedisDriver, job_id: str) -> Accepted:
    """Enqueue until it is answered."""
    with anyio.fail_after(40):
        while True:
            try:
                (reply,) = await driver.enqueue([spec(job_id)])
            except (DriverUnavailableError, OutcomeUnknownError):
                await anyio.sleep(0.05)
            else:
                return reply.verdict


# ---- Sentinels


def replica_of(server: RedisServer) -> dict[str, str]:
    return {"replicaof": f"127.0.0.1 {server.port}"}


class Watched:
    """A master, its replica, and one Sentinel that watches both."""

    def __init__(self, stack: ExitStack) -> None:
        self.master = stack.enter_context(redis_running())
        self.replica = stack.enter_context(redis_running(**replica_of(self.master)))
        self.sentinel = RedisServer()
        file = self.sentinel.folder / "sentinel.conf"
        file.write_text(
            f"sentinel monitor main 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
        )
        self.sentinel.words, self.sentinel.settings = (str(file), "--sentinel"), {}
        stack.callback(self.sentinel.remove)
        self.sentinel.start()

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/main/0"


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(stack)


@pytest.mark.slow("Sentinels take seconds to find that a master is gone")
async def test_another_master_is_found(watched: Watched) -> None:
    driver = RedisDriver(watched.url, call_timeout=5)
    await driver.open()
    try:
        assert await insist(driver, "a") is Accepted.ACCEPTED
        async with admin(f"redis://127.0.0.1:{watched.sentinel.port}") as sentinel:
            await known_replica(sentinel)
            async with admin(watched.master.url) as db:
                await db.ask("WAIT", "1", "5000")
            watched.master.stop(signal.SIGKILL)
            with anyio.fail_after(30):
                while await master_port(sentinel) != watched.replica.port:
                    await anyio.sleep(0.05)
        assert await insist(driver, "b") is Accepted.ACCEPTED
        async with opened(watched.replica, "taskflow") as direct:
            assert [one is not None for one in await direct.fetch(["a", "b"])] == [True, True]
    finally:
        await driver.aclose()


async def known_replica(sentinel: Admin) -> None:
    with anyio.fail_after(30):
        while not any(
            b"master-link-status" in one and one[b"master-link-status"] == b"ok"
            for one in await sentinel.ask("SENTINEL", "REPLICAS", "main")
        ):
            await anyio.sleep(0.05)


async def master_port(sentinel: Admin) -> int:
    return int((await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"))[1])


async def test_a_master_that_no_sentinel_knows(watched: Watched) -> None:
    with pytest.raises(DriverUnavailableError, match="know no master 'other'"):
        await RedisDriver(watched.url.replace("/main", "/other")).open()


# ---- a cluster


@pytest.fixture
def nodes() -> Iterator[tuple[RedisServer, RedisServer]]:
    one, other = (RedisServer(cluster_enabled="yes") for _ in range(2))
    try:
        for node in (one, other):
            while node.port > 55_000:  # they talk to each other at 10,000 above
                node.port = free_port()
            node.start()
        yield one, other
    finally:
        one.remove()
        other.remove()


@pytest.mark.slow("nodes of a cluster take seconds to know each other")
async def test_the_node_that_has_the_slot_is_found(nodes: tuple[RedisServer, RedisServer]) -> None:
    """Through a node that has another part, and again when the slots have moved."""
    one, other = nodes
    async with admin(one.url) as first, admin(other.url) as second:
        await first.ask("CLUSTER", "ADDSLOTS", *map(str, range(16384)))
        await first.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port))
        with anyio.fail_after(40):
            while not all([await is_whole(first), await is_whole(second)]):
                await anyio.sleep(0.05)
        url = f"redis+cluster://127.0.0.1:{other.port},127.0.0.1:{one.port}"
        driver = RedisDriver(url)
        await driver.open()
        try:
            assert await insist(driver, "a") is Accepted.ACCEPTED
            assert await first.ask("DBSIZE") > 0
            assert (await driver.wait(Wait(queues=("default",), timeout=5))).work
            await settle(driver, await claim_one(driver), Event.COMPLETE)
            await driver.prune(10, 0.0)
            await first.ask("FLUSHALL")
            new_owner = (await second.ask("CLUSTER", "MYID")).decode()
            slot = str(await first.ask("CLUSTER", "KEYSLOT", "{taskflow}"))
            for node in (second, first):
                await node.ask("CLUSTER", "SETSLOT", slot, "NODE", new_owner)
            assert await insist(driver, "b") is Accepted.ACCEPTED
            assert await second.ask("DBSIZE") > 0
            assert ids(await claim(driver)) == ["b"]
        finally:
            await driver.aclose()


async def is_whole(node: Admin) -> bool:
    info = (await node.ask("CLUSTER", "INFO")).decode()
    return "cluster_state:ok" in info and "cluster_known_nodes:2" in info


# ---- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    openssl = program("openssl")
    if openssl is None:
        missing("openssl")
    key, file = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [str(openssl), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out",
         str(file)], check=True, capture_output=True,
    )  # fmt: skip
    return key, file


async def test_over_tls(certificate: tuple[Path, Path]) -> None:
    key, file = certificate
    server = RedisServer(tls_key_file=str(key), tls_cert_file=str(file), tls_auth_clients="no",
                         tls_ca_cert_file=str(file))  # fmt: skip
    server.settings["tls-port"] = str(tls_port := free_port())
    try:
        try:
            server.start()
        except RuntimeError as exc:
            pytest.skip(f"this server has no TLS: {exc}")
        place = f"rediss://127.0.0.1:{tls_port}/0"
        async with opened(server, url=f"{place}?ssl_ca_certs={file}") as driver:
            await driver.enqueue([spec("a")])
            assert ids(await claim(driver)) == ["a"]
        with pytest.raises(DriverError, match="certificate"):
            await RedisDriver(place).open()
    finally:
        server.remove()
