"""What the SQLite driver does with jobs, one operation after another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskflow._core.records import (
    Accepted,
    Cancelled,
    Change,
    Conflict,
    ErrorInfo,
    Extended,
    Lane,
    Progress,
    Renewal,
    Token,
    Unique,
    Verdict,
)
from taskflow._core.states import Event, JobState
from taskflow.drivers.sqlite import SqliteDriver
from taskflow.errors import IllegalTransitionError

from .sqlite_kit import ShiftedClock, claim, claim_one, ids, opened, read, record, settle, spec

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def driver(tmp_path: Path, clock: ShiftedClock) -> AsyncIterator[SqliteDriver]:
    async with opened(tmp_path / "jobs.db", clock=clock) as driver:
        yield driver


async def test_a_job_from_enqueue_to_result(driver: SqliteDriver) -> None:
    stored = spec("a", tags={"batch": "1"}, priority=3)
    assert (await driver.enqueue([stored]))[0].verdict is Accepted.ACCEPTED
    job = await claim_one(driver)
    assert job.spec == stored
    assert job.attempt == job.token.delivery == 1
    reply = await settle(driver, job, Event.COMPLETE, result=bytes(range(256)))
    assert (reply.verdict, reply.state) == (Verdict.APPLIED, JobState.COMPLETED)
    found = await read(driver, "a")
    assert found.result == bytes(range(256))
    assert found.record.state is JobState.COMPLETED
    assert found.record.tags == {"batch": "1"}
    assert found.record.finished_at is not None
    assert await driver.fetch(["b"]) == [None]


async def test_same_id_same_content_is_a_duplicate_for_ever(driver: SqliteDriver) -> None:
    async def again() -> Accepted:
        return (await driver.enqueue([spec("a")]))[0].verdict

    first, second = await driver.enqueue([spec("a"), spec("a")])
    assert [first.verdict, second.verdict] == [Accepted.ACCEPTED, Accepted.DUPLICATE]
    assert await again() is Accepted.DUPLICATE
    await settle(driver, await claim_one(driver), Event.FAIL)
    assert await again() is Accepted.DUPLICATE
    (other,) = await driver.enqueue([spec("a", priority=1)])
    assert other.verdict is Accepted.CONFLICT


async def test_odd_ids_are_kept_apart(driver: SqliteDriver) -> None:
    names = ["a", "a\0b", "a\0c", "'; --", "ä", "", "%"]
    await driver.enqueue([spec(name) for name in names])
    assert ids(await claim(driver)) == names
    assert [f is not None and f.record.id for f in await driver.fetch(names)] == names


async def test_order_is_queue_priority_due_and_acceptance(driver: SqliteDriver) -> None:
    await driver.enqueue(
        [
            spec("low"), spec("late", eta=1_000), spec("early", eta=10),
            spec("urgent", priority=5), spec("low2"), spec("first", queue="vip", priority=-5),
            spec("thread", lane=Lane.THREAD, priority=2),
        ]
    )  # fmt: skip
    lanes = (Lane.ASYNC, Lane.THREAD)
    found = await claim(driver, queues=("vip", "default"), lanes=lanes)
    assert ids(found) == ["first", "urgent", "thread", "early", "late", "low", "low2"]


async def test_room_is_shared_by_queues_and_ahead_takes_only_safe_jobs(
    driver: SqliteDriver,
) -> None:
    await driver.enqueue([spec("a", queue="one"), spec("b", queue="one")])
    await driver.enqueue([spec("last", queue="one", max_attempts=1), spec("c", queue="one")])
    await driver.enqueue([spec("d", queue="two"), spec("t", queue="two", lane=Lane.THREAD)])
    found = await claim(driver, 1, ahead=3, queues=("one", "two"))
    assert ids(found) == ["a", "b", "c", "d"]
    assert ids(await claim(driver, queues=("none",), others=True)) == ["last"]


async def test_same_request_gets_the_same_jobs(driver: SqliteDriver) -> None:
    await driver.enqueue([spec(f"j{n}") for n in range(4)])
    first = await claim(driver, 2, request_id="r")
    again = await claim(driver, 2, request_id="r")
    assert first.jobs == again.jobs
    for job in first.jobs:
        await settle(driver, job, Event.COMPLETE)
    assert ids(await claim(driver, 2, request_id="r")) == ["j2", "j3"]


async def test_scheduled_jobs_come_when_due(driver: SqliteDriver, clock: ShiftedClock) -> None:
    await driver.enqueue([spec("a", delay=30), spec("b", delay=90)])
    found = await claim(driver)
    assert not found.jobs
    assert found.next_due_in == pytest.approx(30, abs=1)
    clock.shift(31)
    found = await claim(driver)
    assert ids(found) == ["a"]
    assert found.next_due_in == pytest.approx(59, abs=1)


async def test_retry_keeps_the_error_and_snooze_gives_the_attempt_back(
    driver: SqliteDriver, clock: ShiftedClock
) -> None:
    await driver.enqueue([spec("a")])
    error = ErrorInfo("ValueError", "no", "trace")
    reply = await settle(driver, await claim_one(driver), Event.RETRY, delay=5, error=error)
    assert reply.state is JobState.RETRYABLE
    assert (await record(driver, "a")).error == error
    clock.shift(6)
    job = await claim_one(driver)
    assert job.attempt == 2
    reply = await settle(driver, job, Event.SNOOZE, delay=5, refund=True)
    assert reply.state is JobState.SCHEDULED
    clock.shift(6)
    job = await claim_one(driver)
    assert (job.attempt, job.token.delivery) == (2, 3)
    await settle(driver, job, Event.PARK, delay=1, refund=True, reason="unknown kind")
    clock.shift(2)
    assert (await claim_one(driver)).parks == 1


async def test_release_keeps_the_place_and_counts_only_begun_bodies(driver: SqliteDriver) -> None:
    await driver.enqueue([spec("a"), spec("b")])
    job = await claim_one(driver)
    await settle(driver, job, Event.RELEASE, refund=True, started=False)
    job = await claim_one(driver)
    assert (job.token.id, job.attempt, job.interruptions) == ("a", 1, 0)
    await settle(driver, job, Event.RELEASE, refund=True)
    assert (await claim_one(driver)).interruptions == 1


async def test_a_repeated_settle_is_already_and_a_stale_one_is_lost(driver: SqliteDriver) -> None:
    await driver.enqueue([spec("a")])
    job = await claim_one(driver)
    change = Change(token=job.token, event=Event.RETRY)
    first, second = await driver.settle([change, change])
    assert [first.verdict, second.verdict] == [Verdict.APPLIED, Verdict.ALREADY]
    assert (await settle(driver, job, Event.COMPLETE)).verdict is Verdict.LOST
    newer = await claim_one(driver)
    assert (await driver.settle([change]))[0].verdict is Verdict.ALREADY
    await settle(driver, newer, Event.COMPLETE)
    assert (await driver.settle([change]))[0].verdict is Verdict.LOST
    assert (await settle(driver, newer, Event.COMPLETE)).verdict is Verdict.ALREADY
    unknown = Change(token=Token("x", 1, "r"), event=Event.FAIL)
    assert (await driver.settle([unknown]))[0].verdict is Verdict.LOST


async def test_an_event_that_is_no_settle_changes_nothing(driver: SqliteDriver) -> None:
    await driver.enqueue([spec("a"), spec("b")])
    first, second = (await claim(driver)).jobs
    with pytest.raises(IllegalTransitionError):
        await driver.settle(
            [
                Change(token=first.token, event=Event.COMPLETE),
                Change(token=second.token, event=Event.EXPIRE),
            ]
        )
    assert (await record(driver, "a")).state is JobState.RUNNING


async def test_follow_ups_may_take_the_key_that_their_parent_frees(driver: SqliteDriver) -> None:
    key = Unique("k", on_conflict=Conflict.RAISE)
    await driver.enqueue([spec("a", unique=key)])
    job = await claim_one(driver)
    await settle(driver, job, Event.COMPLETE, follow_ups=(spec("b", unique=key),))
    assert (await record(driver, "b")).state is JobState.AVAILABLE


async def test_failed_jobs_are_kept_with_error_and_reason(driver: SqliteDriver) -> None:
    await driver.enqueue([spec("a")])
    error = ErrorInfo("ValueError", "no")
    await settle(driver, await claim_one(driver), Event.FAIL, error=error, reason="exhausted")
    found = await record(driver, "a")
    assert (found.state, found.reason, found.error) == (JobState.FAILED, "exhausted", error)


async def test_cancel(driver: SqliteDriver) -> None:
    await driver.enqueue([spec("run", priority=1), spec("wait")])
    job = await claim_one(driver)
    assert await driver.cancel(["wait", "wait", "run", "none"]) == [
        Cancelled.CANCELLED, Cancelled.FINAL, Cancelled.REQUESTED, Cancelled.UNKNOWN,
    ]  # fmt: skip
    assert (await record(driver, "wait")).reason == "cancelled"
    assert await driver.extend([Renewal(job.token)], 60) == [Extended.CANCEL]
    reply = await settle(driver, job, Event.RETRY, delay=5)
    assert reply.state is JobState.CANCELLED
    assert (await record(driver, "run")).reason == "cancelled"


async def test_a_dead_lease_is_ended_in_place(driver: SqliteDriver, clock: ShiftedClock) -> None:
    await driver.enqueue([spec("a"), spec("b")])
    job = await claim_one(driver, lease=12)
    clock.shift(12.5)
    assert await driver.expire(10) == []  # the grace of one second
    assert await driver.extend([Renewal(job.token, Progress(0.5, "half"))], 12) == [
        Extended.RENEWED
    ]
    assert (await record(driver, "a")).progress == Progress(0.5, "half")
    clock.shift(14)
    assert await driver.expire(10) == ["a"]
    assert await driver.extend([Renewal(job.token)], 12) == [Extended.LOST]
    assert (await settle(driver, job, Event.COMPLETE)).verdict is Verdict.LOST
    again = await claim_one(driver)
    assert (again.token.id, again.crashes, again.attempt) == ("a", 1, 2)


async def test_extend_never_shortens(driver: SqliteDriver, clock: ShiftedClock) -> None:
    await driver.enqueue([spec("a")])
    job = await claim_one(driver, lease=600)
    await driver.extend([Renewal(job.token)], 2)
    clock.shift(500)
    assert await driver.expire(10) == []


async def test_a_job_past_its_time_never_starts(driver: SqliteDriver, clock: ShiftedClock) -> None:
    await driver.enqueue([spec("a", expires_in=10), spec("b", expires_in=10, delay=5)])
    clock.shift(11)
    assert not (await claim(driver)).jobs
    for job_id in "ab":
        found = await record(driver, job_id)
        assert (found.state, found.reason) == (JobState.CANCELLED, "expired")


@pytest.mark.parametrize("how", [Conflict.KEEP, Conflict.RAISE, Conflict.REPLACE])
async def test_a_unique_key_has_one_live_holder(driver: SqliteDriver, how: Conflict) -> None:
    key = Unique("the key", on_conflict=how)
    await driver.enqueue([spec("a", unique=key)])
    (reply,) = await driver.enqueue([spec("b", unique=key)])
    expected = {
        Conflict.KEEP: (Accepted.HELD, "a"), Conflict.RAISE: (Accepted.CONFLICT, "a"),
        Conflict.REPLACE: (Accepted.ACCEPTED, "b"),
    }  # fmt: skip
    assert (reply.verdict, reply.id) == expected[how]
    holder = await claim_one(driver)
    if how is Conflict.REPLACE:
        assert (await record(driver, "a")).reason == "replaced"
        assert (await driver.enqueue([spec("c", unique=key)]))[0].verdict is Accepted.CONFLICT
    await settle(driver, holder, Event.COMPLETE)
    assert (await driver.enqueue([spec("d", unique=key)]))[0].verdict is Accepted.ACCEPTED


async def test_a_key_is_held_only_in_the_named_states(driver: SqliteDriver) -> None:
    key = Unique("k", states=(JobState.AVAILABLE,))
    await driver.enqueue([spec("a", unique=key)])
    assert (await driver.enqueue([spec("b", unique=key)]))[0].verdict is Accepted.HELD
    await claim_one(driver)
    assert (await driver.enqueue([spec("b", unique=key)]))[0].verdict is Accepted.ACCEPTED


async def test_without_ttl_no_result_is_kept(driver: SqliteDriver) -> None:
    await driver.enqueue([spec("a", result_ttl=0)])
    await settle(driver, await claim_one(driver), Event.COMPLETE, result=b"r")
    assert (await read(driver, "a")).result is None


async def test_far_times_are_kept_as_the_last_instant(driver: SqliteDriver) -> None:
    await driver.enqueue([spec("a", delay=1e30, expires_in=1e300, result_ttl=1e300)])
    assert (await record(driver, "a")).due_at.year > 9000
