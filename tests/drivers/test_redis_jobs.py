"""Many jobs in Redis: work in steps, pages, ages, and who may be claimed ahead."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from taskflow._core.flows import Edge
from taskflow._core.queries import JobQuery
from taskflow._core.records import Claim, JobSpec, Lane, Room
from taskflow._core.states import Event, JobState
from taskflow.drivers.redis import RedisDriver
from taskflow.testing.contract import VirtualClock
from tests.drivers.redis_kit import admin, claim, claim_one, ids, opened, record, settle, spec
from tests.drivers.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def driver(redis_server: RedisServer, clock: VirtualClock) -> AsyncIterator[RedisDriver]:
    async with opened(redis_server, clock=clock) as driver:
        yield driver


async def test_a_purge_of_many_jobs_spares_what_runs(
    redis_server: RedisServer, driver: RedisDriver
) -> None:
    """In steps; successors go before what they wait for, so that none is skipped instead."""
    chain = [JobSpec(id="link 0", kind="Job", payload=b"")]
    chain += [spec(f"link {n}", after=(Edge(f"link {n - 1}"),)) for n in range(1, 700)]
    others = [spec(f"late {n}", delay=60.0) for n in range(600)]
    others += [spec(f"lane {n}", lane=Lane.PROCESS, priority=n % 5) for n in range(600)]
    elsewhere = spec("elsewhere", queue="other", after=(Edge("link 699"),))
    await driver.enqueue([spec("runs"), *chain, *others, elsewhere])
    assert ids(await claim(driver, 1)) == ["runs"]
    assert await driver.purge("default") == 1900
    assert await driver.purge("default") == 0
    await driver.expire(10)
    assert (await record(driver, "elsewhere")).reason == "skipped"
    left = {(one.queue, *one.counts.items()) for one in await driver.stats()}
    assert left == {("default", (JobState.RUNNING, 1)), ("other", (JobState.CANCELLED, 1))}
    async with admin(redis_server.url) as db:
        assert await db.keys(driver) == {
            "row", "spec", "all", "seq", "counts", "leases", "held", "holding", "ended", "after",
        }  # fmt: skip


async def test_a_list_finds_the_few_among_many(driver: RedisDriver) -> None:
    for begin in range(0, 6000, 500):
        await driver.enqueue([
            spec(str(n), queue="rare" if n % 1000 == 7 else "default",
                 tags={"n": "x"} if n % 2500 == 0 else {}) for n in range(begin, begin + 500)
        ])  # fmt: skip
    for query, wanted in (
        (JobQuery(queue="rare", limit=4), ["5007", "4007", "3007", "2007", "1007", "7"]),
        (JobQuery(tags={"n": "x"}, limit=100), ["5000", "2500", "0"]),
    ):
        found: list[str] = []
        cursor: str | None = None
        for _ in range(10):
            page = await driver.list_jobs(
                JobQuery(queue=query.queue, tags=query.tags, limit=query.limit, cursor=cursor)
            )
            assert len(page.jobs) <= query.limit
            found += [one.id for one in page.jobs]
            cursor = page.cursor
            if cursor is None:
                break
        assert (found, cursor) == (wanted, None)


async def test_the_oldest_is_told_over_all_priorities(
    driver: RedisDriver, clock: VirtualClock
) -> None:
    await driver.enqueue([spec("low", priority=-100)])
    clock.shift(1000.0)
    await driver.enqueue([spec("high", priority=100), spec("lane", lane=Lane.THREAD)])
    (stats,) = await driver.stats()
    assert stats.oldest is not None
    assert 1000.0 <= stats.oldest < 1060.0


async def test_what_ended_lately_is_counted_and_uncounted(
    driver: RedisDriver, clock: VirtualClock
) -> None:
    await driver.enqueue([spec("a"), spec("b", failed_ttl=0.0), spec("c")])
    for event in (Event.FAIL, Event.FAIL, Event.COMPLETE):
        await settle(driver, await claim_one(driver), event)

    async def finished() -> int:
        return (await driver.stats())[0].finished

    assert await finished() == 3
    await driver.replay(["a"])
    assert await finished() == 2
    assert await driver.prune(10, 0.0) == 1
    assert await finished() == 1
    clock.shift(62.0)
    assert await finished() == 0


async def test_a_claim_ahead_passes_over_many_fragile_jobs(driver: RedisDriver) -> None:
    await driver.enqueue([spec(f"fragile {n}", max_attempts=1) for n in range(300)])
    await driver.enqueue([spec(f"sound {n}") for n in range(3)])
    request = Claim(
        queues=("default",), rooms={Lane.ASYNC: Room(1, 2)}, lease=60, request_id="r",
        worker_id="w",
    )  # fmt: skip
    assert ids(await driver.claim(request)) == ["fragile 0", "sound 0", "sound 1"]
    assert ids(await driver.claim(request)) == ["fragile 0", "sound 0", "sound 1"]


async def test_far_and_ancient_times(driver: RedisDriver) -> None:
    """Due times beyond what a score can tell apart are kept to the microsecond in the job."""
    far = 250_000_000_000 * 1_000_000
    await driver.enqueue([
        spec("ancient", eta=-62_000_000_000_000_000), spec("old", eta=1), spec("far", eta=far),
        spec("later", delay=1e12, expires_in=1e12, result_ttl=1e12),
    ])  # fmt: skip
    assert (await record(driver, "far")).due_at.year > 9000
    assert (await record(driver, "later")).due_at.year > 9000
    claimed = await claim(driver)
    assert sorted(ids(claimed)) == ["ancient", "old"]
    assert claimed.next_due_in is not None
    assert claimed.next_due_in > 1e10
