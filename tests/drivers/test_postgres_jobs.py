"""What is special to the PostgreSQL driver when jobs are stored, claimed and settled."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from taskflow._core.flows import Edge
from taskflow._core.records import (
    Accepted,
    Conflict,
    Extended,
    Lane,
    Renewal,
    Token,
    Unique,
    Verdict,
)
from taskflow._core.states import Event, JobState
from taskflow.drivers.postgres import PostgresDriver
from tests.drivers.postgres_kit import (
    Shift,
    admin,
    claim,
    claim_one,
    ids,
    opened,
    record,
    schema_of,
    settle,
    spec,
)
from tests.drivers.servers import PostgresServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def shift() -> Shift:
    return Shift()


@pytest.fixture
async def driver(postgres_server: PostgresServer, shift: Shift) -> AsyncIterator[PostgresDriver]:
    async with opened(postgres_server, clock_offset=shift) as driver:
        yield driver


async def test_odd_text_is_kept_apart(driver: PostgresDriver) -> None:
    names = ["a", "a\0b", "a\0c", "'; --", "ä", "%", "\x1a", "\x1a1", "\x1e\x1f", "{jobs}", "\\x00"]
    await driver.enqueue([spec(name, queue=name, tags={name: name}) for name in names])
    for name in names:
        job = await claim_one(driver, queues=(name,))
        assert job.token.id == job.spec.id == name
        await settle(driver, job, Event.FAIL, reason=name)
        shown = await record(driver, name)
        assert (shown.queue, shown.reason, shown.tags) == (name, name, {name: name})


async def test_order_is_queue_priority_due_and_acceptance(
    driver: PostgresDriver, shift: Shift
) -> None:
    await driver.enqueue([
        spec("other", queue="other", priority=9), spec("low", priority=-1), spec("second"),
        spec("third"), spec("later", delay=5), spec("high", priority=1, lane=Lane.THREAD),
        spec("any", queue="any"),
    ])  # fmt: skip
    shift.offset = 10
    lanes = (Lane.THREAD, Lane.ASYNC)
    order = ids(await claim(driver, queues=("default", "other"), lanes=lanes, others=True))
    assert order == ["high", "second", "third", "later", "low", "other", "any"]


async def test_two_claimers_share_the_work_and_lock_nobody_out(driver: PostgresDriver) -> None:
    await driver.enqueue([spec(f"{n:03}") for n in range(200)])
    found: list[list[str]] = []

    async def take() -> None:
        while mine := ids(await claim(driver, 10)):
            assert mine == sorted(mine)
            found.append(mine)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(take)
    assert sorted(sum(found, [])) == [f"{n:03}" for n in range(200)]


async def test_rooms_ahead_take_only_what_can_bear_it(driver: PostgresDriver) -> None:
    await driver.enqueue([spec("last", max_attempts=1), spec("one"), spec("two", max_attempts=1)])
    await driver.enqueue([spec("three"), spec("four")])
    assert ids(await claim(driver, 1, ahead=2)) == ["last", "one", "three"]


async def test_a_request_sent_twice_at_one_time_takes_its_jobs_once(
    driver: PostgresDriver,
) -> None:
    await driver.enqueue([spec(str(n)) for n in range(9)])
    found: list[list[str]] = []

    async def take() -> None:
        found.append(ids(await claim(driver, 3, request_id="same")))

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(take)
    assert found == [["0", "1", "2"]] * 6


async def test_one_job_stored_by_many_at_one_time_is_stored_once(driver: PostgresDriver) -> None:
    verdicts: list[Accepted] = []
    batch = [spec(str(n)) for n in range(20)]

    async def store(turned: bool) -> None:
        verdicts.extend(one.verdict for one in await driver.enqueue(batch[:: -1 if turned else 1]))

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(store, n % 2 == 1)
    assert verdicts.count(Accepted.ACCEPTED) == 20
    assert verdicts.count(Accepted.DUPLICATE) == 140
    assert len(ids(await claim(driver, 100))) == 20


@pytest.mark.parametrize("conflict", [Conflict.KEEP, Conflict.REPLACE])
async def test_one_key_asked_for_by_many_has_one_holder(
    driver: PostgresDriver, conflict: Conflict
) -> None:
    unique = Unique("key", on_conflict=conflict)

    async def store(name: str) -> None:
        await driver.enqueue([spec(name, unique=unique), spec(name + "+", unique=unique)])

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(store, str(n))
    assert len(ids(await claim(driver, 100))) == 1


async def test_a_stale_token_changes_nothing(driver: PostgresDriver, shift: Shift) -> None:
    await driver.enqueue([spec("a")])
    first = await claim_one(driver)
    shift.offset = 100
    assert await driver.expire(10) == ["a"]
    second = await claim_one(driver)
    assert second.crashes == 1
    assert (await settle(driver, first, Event.COMPLETE)).verdict is Verdict.LOST
    forged = Token("a", 2, first.token.request_id)
    assert await driver.extend(
        [Renewal(first.token), Renewal(forged), Renewal(second.token)], 60
    ) == [Extended.LOST, Extended.LOST, Extended.RENEWED]
    done = await settle(driver, second, Event.COMPLETE)
    again = await settle(driver, second, Event.COMPLETE)
    assert (done.verdict, again.verdict) == (Verdict.APPLIED, Verdict.ALREADY)
    assert again.state is JobState.COMPLETED


async def test_predecessors_that_end_together_let_their_successor_go(
    driver: PostgresDriver,
) -> None:
    """Each of two transactions sees only its own end until the other commits."""
    for turn in range(10):
        names = [f"{turn}-{n}" for n in range(8)]
        await driver.enqueue([spec(name) for name in names])
        jobs = (await claim(driver, 8)).jobs
        edges = tuple(Edge(name) for name in names)
        async with anyio.create_task_group() as group:
            group.start_soon(driver.enqueue, [spec(f"{turn}-next", after=edges)])
            for job in jobs:
                group.start_soon(settle, driver, job, Event.COMPLETE)
        job = await claim_one(driver)
        assert job.token.id == f"{turn}-next"
        await settle(driver, job, Event.COMPLETE)


async def test_settles_in_opposite_order_do_not_block_each_other(driver: PostgresDriver) -> None:
    await driver.enqueue([spec(str(n)) for n in range(60)])
    jobs = (await claim(driver, 60)).jobs
    for round_ in range(5):

        async def renew(turned: bool, round_: int = round_) -> None:
            tokens = [Renewal(job.token) for job in jobs[round_:]]
            replies = await driver.extend(tokens[:: -1 if turned else 1], 60)
            assert set(replies) == {Extended.RENEWED}

        async with anyio.create_task_group() as group:
            for n in range(6):
                group.start_soon(renew, n % 2 == 1)


async def test_what_is_finished_leaves_nothing_behind(
    driver: PostgresDriver, postgres_server: PostgresServer, shift: Shift
) -> None:
    await driver.enqueue([spec("a"), spec("b", after=(Edge("a"),), unique=Unique("k"))])
    for _ in range(2):
        await settle(driver, await claim_one(driver), Event.COMPLETE, result=b"\xc0")
    await driver.enqueue([spec("c")])
    await settle(driver, await claim_one(driver), Event.FAIL, reason="no")
    shift.offset = 2_700_000
    assert await driver.prune(100, 60) == 3
    async with admin(postgres_server.url) as db:
        for table in await db.rows(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND tablename NOT LIKE '%schema'",
            schema_of(driver),
        ):
            count = await db.value(f'SELECT count(*) FROM {schema_of(driver)}."{table[0]}"')
            assert (table[0], count) == (table[0], 0)
