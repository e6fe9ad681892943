"""What a call reads does not grow with what is stored, whatever the planner knew when it began."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hypothesis
import pytest

from taskflow._core.records import Change, Leased, Renewal
from taskflow._core.states import Event
from taskflow.drivers.postgres import PostgresDriver
from tests.drivers.postgres_kit import Admin, Shift, admin, claim, opened, schema_of, spec, until
from tests.drivers.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

IS_DEEP = hypothesis.settings().max_examples > 100
DUE, FINISHED = (100_000, 1_000_000) if IS_DEEP else (50_000, 100_000)
STORED = 60_000 if IS_DEEP else 20_000
RUNNING = 4000
BATCH, ROUNDS = 100, 8
MOST = 80 * BATCH
"""Index entries and rows that one round may read; a whole table has many times as many."""

READ = """
SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = $1)
     + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = $1)
"""
OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
BY_INDEX = """
SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes
WHERE schemaname = $1 AND idx_tup_read > 0 ORDER BY 2 DESC
"""


async def fill(db: Admin, schema: str, table: str, count: int, **columns: str) -> None:
    """Copies of the job ``pattern``, in no time; nothing is analysed after that."""
    columns |= {"seq": "n - 1000000000", "id": f"'{table}-' || n"}
    names = await db.rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0"
        " ORDER BY attnum",
        f"{schema}.{table}",
    )
    chosen = ", ".join(columns.get(name, f"j.{name}") for (name,) in names)
    await db.run(
        f"INSERT INTO {schema}.{table} SELECT {chosen}"
        f" FROM {schema}.task_queue AS j, generate_series(1, {count}) AS n WHERE j.id = 'pattern'"
    )


async def read_so_far(db: Admin, schema: str) -> int:
    """As counted when other sessions are gone: each counts for itself until it ends."""

    async def is_alone() -> bool:
        return not await db.value(OTHERS)

    await until(is_alone)
    return int(await db.value(READ, schema))


async def analyse_no_more(db: Admin, schema: str) -> None:
    for table in ("task_queue", "task_queue_finished", "dead_letter_queue"):
        await db.run(f"ALTER TABLE {schema}.{table} SET (autovacuum_enabled = off)")


ENDS: tuple[dict[str, Any], ...] = (
    {"event": Event.COMPLETE, "result": b"\xc0"}, {"event": Event.FAIL},
    {"event": Event.RELEASE}, {"event": Event.SNOOZE, "delay": 3600.0},
)  # fmt: skip


def ended(jobs: Sequence[Leased]) -> list[Change]:
    """Ends of each kind."""
    return [Change(token=job.token, **ENDS[n % len(ENDS)]) for n, job in enumerate(jobs)]


async def one_round(driver: PostgresDriver, turn: str, clock: Shift) -> None:
    """Store, claim, renew, end and read a batch of jobs; let the leases of some run out."""
    await driver.enqueue([spec(f"{turn}-{n}", priority=1) for n in range(BATCH)])
    jobs = (await claim(driver, BATCH, ahead=BATCH)).jobs
    await driver.extend([Renewal(job.token) for job in jobs], 60)
    half = len(jobs) // 2
    await driver.settle(ended(jobs[:half]))
    await driver.fetch([job.token.id for job in jobs])
    clock.offset += 100
    assert len(await driver.expire(half)) == half


@pytest.mark.slow("stores many jobs")
@pytest.mark.timeout(300)
async def test_no_call_reads_a_whole_table(postgres_server: PostgresServer) -> None:
    clock = Shift()
    async with opened(postgres_server, notify=False, clock_offset=clock) as driver:
        schema = schema_of(driver)
        for turn in range(ROUNDS):  # plans are made of empty tables, and kept
            await one_round(driver, f"early-{turn}", clock)
        await driver.enqueue([spec("pattern", priority=-1)])
        async with admin(postgres_server.url) as db:
            await analyse_no_more(db, schema)
            await fill(
                db, schema, "task_queue_finished", FINISHED, state="'completed'",
                finished_at="j.due", forget_at="j.due + j.result_ttl",
            )  # fmt: skip
            await fill(db, schema, "task_queue", DUE, due="j.due + n")
        for turn in range(ROUNDS):
            await one_round(driver, f"late-{turn}", clock)
    async with opened(postgres_server, schema, notify=False, clock_offset=clock) as driver:
        await one_round(driver, "anew", clock)  # with new plans
    async with admin(postgres_server.url) as db:
        read = await read_so_far(db, schema)
        rounds = 2 * ROUNDS + 1
        assert rounds * BATCH < read < rounds * MOST, await db.rows(BY_INDEX, schema)


Call = Callable[[PostgresDriver, Sequence[Leased]], Awaitable[object]]
CALLS: dict[str, Call] = {
    "claim": lambda driver, _: claim(driver, BATCH),
    "claim again": lambda driver, _: claim(driver, BATCH, request_id="again"),
    "claim ahead": lambda driver, _: claim(driver, BATCH, ahead=BATCH),
    "extend": lambda driver, jobs: driver.extend([Renewal(job.token) for job in jobs], 60),
    "settle": lambda driver, jobs: driver.settle(ended(jobs)),
    "settle again": lambda driver, jobs: driver.settle(
        [Change(token=job.token, event=Event.COMPLETE) for job in (*jobs, *jobs)]
    ),
    "expire": lambda driver, _: driver.expire(BATCH),
    "cancel": lambda driver, jobs: driver.cancel([job.token.id for job in jobs]),
    "fetch": lambda driver, jobs: driver.fetch([job.token.id for job in jobs]),
}


@pytest.mark.slow("stores many jobs")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("moment", ["none ran", "all ran"])
@pytest.mark.parametrize("name", CALLS)
async def test_statistics_of_another_moment_do_no_harm(
    postgres_server: PostgresServer, name: str, moment: str
) -> None:
    async with admin(postgres_server.url) as db, opened(postgres_server, notify=False) as driver:
        schema = schema_of(driver)
        await analyse_no_more(db, schema)
        await driver.enqueue([spec("pattern", priority=-1)])
        await fill(db, schema, "task_queue", STORED, due="j.due + n")
        if moment == "all ran":
            await db.run(f"UPDATE {schema}.task_queue SET state = 'running', delivery = 1")
        await db.run(f"VACUUM ANALYZE {schema}.task_queue")
        await db.run(f"UPDATE {schema}.task_queue SET state = 'available'")
        await db.run(f"VACUUM {schema}.task_queue")
        jobs: list[Leased] = []
        while len(jobs) < RUNNING:
            jobs += (await claim(driver, 1000)).jobs
    async with admin(postgres_server.url) as db:
        before = await read_so_far(db, schema)
        async with opened(postgres_server, schema, notify=False, max_pool_size=1) as driver:
            for turn in range(ROUNDS):  # the last with plans that are kept
                await CALLS[name](driver, jobs[turn * BATCH :][:BATCH])
        read = await read_so_far(db, schema) - before
        assert read < ROUNDS * MOST, await db.rows(BY_INDEX, schema)
