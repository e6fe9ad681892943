"""What a call reads does not grow with what is stored, whatever the planner knew when it began."""

from __future__ import annotations

import pytest

from taskflow._core.records import Renewal
from taskflow._core.states import Event
from taskflow.drivers.postgres import PostgresDriver
from tests.drivers.postgres_kit import Admin, admin, claim, opened, schema_of, spec
from tests.drivers.postgres_kit import settle as settle_one
from tests.drivers.servers import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

DUE, FINISHED = 100_000, 300_000
BATCH, ROUNDS = 100, 8
MOST = 40 * BATCH
"""Index entries and rows that one round may read; a whole table has a hundred times as many."""

READ = """
SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = $1)
     + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = $1)
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


async def one_round(driver: PostgresDriver, turn: str) -> None:
    """Store, claim, renew, end and read a batch of jobs."""
    await driver.enqueue([spec(f"{turn}-{n}", priority=1) for n in range(BATCH)])
    jobs = (await claim(driver, BATCH, ahead=BATCH)).jobs
    await driver.extend([Renewal(job.token) for job in jobs], 60)
    for job in jobs[:3]:
        await settle_one(driver, job, Event.COMPLETE, result=b"\xc0")
    await driver.fetch([job.token.id for job in jobs])
    await driver.expire(100)


@pytest.mark.slow("stores 400,000 jobs")
@pytest.mark.timeout(120)
async def test_no_call_reads_a_whole_table(postgres_server: PostgresServer) -> None:
    async with admin(postgres_server.url) as db:
        async with opened(postgres_server, notify=False) as driver:
            schema = schema_of(driver)
            await db.run(f"ALTER TABLE {schema}.task_queue SET (autovacuum_enabled = off)")
            await db.run(f"ALTER TABLE {schema}.task_queue_finished SET (autovacuum_enabled = off)")
            for turn in range(ROUNDS):  # plans are made of empty tables, and kept
                await one_round(driver, f"early-{turn}")
            await driver.enqueue([spec("pattern", priority=-1)])
            await fill(
                db, schema, "task_queue_finished", FINISHED, state="'completed'",
                finished_at="j.due", forget_at="j.due + j.result_ttl",
            )  # fmt: skip
            await fill(db, schema, "task_queue", DUE, due="j.due + n")
            for turn in range(ROUNDS):
                await one_round(driver, f"late-{turn}")
        async with opened(postgres_server, schema, notify=False) as driver:  # new plans
            await one_round(driver, "anew")
        read = await db.value(READ, schema)
        rounds = 2 * ROUNDS + 1
        assert rounds * BATCH < read < rounds * MOST
