"""A transaction that stays open keeps dead rows, which claims walk past: right, and slower."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

import hypothesis
import pytest

from taskflow._core.records import Change
from taskflow._core.states import Event
from taskflow.drivers.postgres import PostgresDriver, rights
from tests.drivers.postgres_kit import Admin, admin, claim, ids, opened, schema_of, spec, until
from tests.drivers.servers import PostgresServer

pytestmark = pytest.mark.anyio

IS_DEEP = hypothesis.settings().max_examples > 100
CHURN = 20_000 if IS_DEEP else 2_000
BATCH = 500
ROUNDS = 20
LARGE = 100
ENTRIES = (
    "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = $1 AND indexrelname = $2"
)
DEAD = "SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 'task_queue'"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'taskflow'"


class Cost(NamedTuple):
    """Of claims: milliseconds (medians), and the entries that all of them read of their index."""

    one: float
    many: float
    entries: int

    def __str__(self) -> str:
        return f"one job {self.one:.1f} ms, {LARGE} jobs {self.many:.1f} ms, {self.entries} entries"


async def turnover(driver: PostgresDriver, turn: str, size: int, rounds: int) -> float:
    """Jobs come and go, each once and in order; what a claim took, in milliseconds."""
    seconds: list[float] = []
    for n in range(rounds):
        names = [f"{turn}-{size}-{n}-{i}" for i in range(size)]
        await driver.enqueue([spec(name) for name in names])
        began = time.perf_counter()
        claimed = await claim(driver, size)
        seconds.append(time.perf_counter() - began)
        assert ids(claimed) == names
        await driver.settle([Change(token=job.token, event=Event.COMPLETE) for job in claimed.jobs])
    return 1000 * median(seconds)


async def entries_read(db: Admin, schema: str) -> int:
    """Sessions tell what they have read when they end."""

    async def are_gone() -> bool:
        return not await db.value(SESSIONS)

    await until(are_gone)
    return int(await db.value(ENTRIES, schema, "task_queue_ready_ix"))


async def cost(server: PostgresServer, db: Admin, schema: str, turn: str) -> Cost:
    before = await entries_read(db, schema)
    async with opened(server, schema, notify=False) as driver:
        one = await turnover(driver, turn, 1, ROUNDS)
        many = await turnover(driver, turn, LARGE, ROUNDS)
    return Cost(one, many, await entries_read(db, schema) - before)


async def swept(db: Admin, schema: str) -> None:
    """Vacuum until nothing dead is left: an autovacuum elsewhere has a snapshot, too."""

    async def is_clean() -> bool:
        await db.run(f"VACUUM {schema}.task_queue")
        return not await db.value(DEAD, schema)

    await until(is_clean, 60)


@pytest.mark.slow("many jobs come and go")
@pytest.mark.timeout(300)
async def test_claims_stay_right_beside_an_old_snapshot(postgres_server: PostgresServer) -> None:
    async with opened(postgres_server, notify=False) as driver:
        schema = schema_of(driver)
    async with admin(postgres_server.url) as db, admin(postgres_server.url) as old:
        await db.run(f"ALTER TABLE {schema}.task_queue SET (autovacuum_enabled = off)")
        fresh = await cost(postgres_server, db, schema, "fresh")
        await old.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
        seen = await old.value(f"SELECT count(*) FROM {schema}.task_queue")
        async with opened(postgres_server, schema, notify=False) as driver:
            await turnover(driver, "churn", BATCH, CHURN // BATCH)
        await db.run(f"VACUUM {schema}.task_queue")
        beside = await cost(postgres_server, db, schema, "beside")
        assert await old.value(f"SELECT count(*) FROM {schema}.task_queue") == seen
        await old.run("COMMIT")
        await swept(db, schema)
        after = await cost(postgres_server, db, schema, "after")
    print(f"\nwithout: {fresh}\nwith {CHURN} dead rows: {beside}\nafter a vacuum: {after}")
    assert beside.entries > 2 * ROUNDS * CHURN / 2, "the dead rows were not there"
    assert after.entries < beside.entries / 4


async def test_a_worker_that_starts_is_told_of_a_transaction_that_stays_open(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(postgres_server) as driver, admin(postgres_server.url) as old:
        await old.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
        pid = await old.value("SELECT pg_backend_pid()")
        assert not [one for one in await driver.check() if "transaction open" in one]
        monkeypatch.setattr(rights, "OLD", 0.0)
        (warning,) = [one for one in await driver.check() if "transaction open" in one]
        assert f"session {pid} ('admin')" in warning
        assert "idle_in_transaction_session_timeout" in warning
        await old.run("COMMIT")
