"""``decide`` answers every outcome of every job, by the law and within the job's attempts."""

from __future__ import annotations

import math
from typing import get_args

from hypothesis import example, given
from hypothesis import strategies as st

from taskflow._core.decide import PARK_CAP, decide, precheck
from taskflow._core.outcomes import (
    Completed,
    Crashed,
    Discarded,
    Failed,
    Outcome,
    Parked,
    Released,
    Retried,
    Snoozed,
    Stopped,
)
from taskflow._core.records import ErrorInfo, JobSpec, Leased, Token
from taskflow._core.states import SETTLES, Event, JobState, after
from tests.property.draws import errors, leased, outcomes

NO_DELAY = {Event.COMPLETE, Event.FAIL, Event.RELEASE, Event.CANCEL}
ERROR = ErrorInfo("ValueError", "no")


def job(*, attempt: int = 1, max_attempts: int = 3, parks: int = 0) -> Leased:
    spec = JobSpec(id="j", kind="k", payload=b"", max_attempts=max_attempts)
    return Leased(token=Token("j", 1, "r"), spec=spec, attempt=attempt, parks=parks)


def test_the_outcomes_drawn_are_all_that_there_are() -> None:
    drawn = {Completed, Failed, Retried, Snoozed, Discarded, Parked, Released, Stopped, Crashed}
    assert set(get_args(Outcome)) == drawn


@given(leased, outcomes)
def test_every_outcome_has_a_change_that_the_law_allows(job: Leased, outcome: Outcome) -> None:
    change = decide(job, outcome)
    assert change.token == job.token
    assert change.event in SETTLES
    for asked in (False, True):
        state = after(JobState.RUNNING, change.event, cancel_requested=asked, by_holder=True)
        assert state is not JobState.RUNNING
    assert decide(job, outcome) == change


@given(leased, outcomes)
def test_delays_are_finite_and_not_negative(job: Leased, outcome: Outcome) -> None:
    change = decide(job, outcome)
    assert math.isfinite(change.delay)
    assert change.delay >= 0
    if change.event in NO_DELAY:
        assert change.delay == 0


@given(leased, outcomes)
def test_attempts_are_never_exceeded(job: Leased, outcome: Outcome) -> None:
    """After the next claim counts its own, an attempt beyond the limit cannot come of a change."""
    change = decide(job, outcome)
    if change.event is Event.RETRY:
        assert not change.refund
        assert job.attempt + 1 <= job.spec.max_attempts
    elif change.event in {Event.SNOOZE, Event.PARK, Event.RELEASE}:
        assert change.refund


@given(leased, outcomes)
def test_attempts_are_given_back_only_for_what_did_not_run_to_its_end(
    job: Leased, outcome: Outcome
) -> None:
    change = decide(job, outcome)
    match outcome:
        case Stopped(started):
            assert change.refund is not started
            assert change.started is started
        case Released(started):
            assert change.refund
            assert change.started is started
        case Parked() | Crashed():
            assert change.refund
            assert not change.started
        case Snoozed():
            assert change.refund
            assert change.started
        case _:
            assert not change.refund
            assert change.started


@given(leased, errors, st.booleans())
def test_a_failure_is_retried_until_the_last_attempt(
    job: Leased, error: ErrorInfo, final: bool
) -> None:
    change = decide(job, Failed(error, final))
    assert change.error == error
    if final:
        assert (change.event, change.reason) == (Event.FAIL, "refused")
    elif job.attempt < job.spec.max_attempts:
        assert (change.event, change.reason) == (Event.RETRY, "")
        assert change.delay == job.spec.retry.delay(job.attempt, job.spec.id)
    else:
        assert (change.event, change.reason) == (Event.FAIL, "exhausted")


@given(leased, st.none() | st.floats(0, 1e9))
def test_the_last_retry_becomes_a_failure(job: Leased, wait: float | None) -> None:
    change = decide(job, Retried(wait))
    assert change.error is not None
    if job.attempt >= job.spec.max_attempts:
        assert (change.event, change.reason) == (Event.FAIL, "exhausted")
    else:
        assert change.event is Event.RETRY
        own = job.spec.retry.delay(job.attempt, job.spec.id)
        assert change.delay == (own if wait is None else wait)


@given(leased, st.floats(0, 1e9))
def test_snoozing_and_parking_never_fail_a_job(job: Leased, delay: float) -> None:
    assert decide(job, Snoozed(delay)).event is Event.SNOOZE
    assert decide(job, Snoozed(delay)).delay == delay
    parked = decide(job, Parked())
    assert parked.event is Event.PARK
    assert parked.reason == "unknown kind"


@example(2**63)
@given(st.integers(0, 2**63))
def test_parks_wait_longer_each_time_up_to_a_cap(parks: int) -> None:
    delay = decide(job(parks=parks), Parked()).delay
    assert delay == (2.0**parks if parks <= 8 else PARK_CAP)
    assert delay <= decide(job(parks=parks + 1), Parked()).delay <= PARK_CAP


@given(leased, st.binary(max_size=20), st.text(max_size=20))
def test_ends_keep_what_they_came_with(job: Leased, result: bytes, why: str) -> None:
    done = decide(job, Completed(result))
    assert (done.event, done.result, done.error) == (Event.COMPLETE, result, None)
    gone = decide(job, Discarded(why))
    assert (gone.event, gone.reason) == (Event.FAIL, "discarded")
    assert gone.error == ErrorInfo("Discard", why)
    dead = decide(job, Crashed())
    assert (dead.event, dead.reason) == (Event.FAIL, "crashed")
    assert dead.error is not None
    assert str(job.crashes) in dead.error.message
    stopped = decide(job, Stopped())
    assert (stopped.event, stopped.reason) == (Event.CANCEL, "cancelled")


def test_crashed_is_final_whatever_attempts_are_left() -> None:
    assert decide(job(attempt=1, max_attempts=9), Crashed()).event is Event.FAIL


@given(leased, st.integers(0, 5))
def test_precheck_lets_nothing_run_that_must_not(job: Leased, max_crashes: int) -> None:
    found = precheck(job, max_crashes=max_crashes)
    if job.cancel_requested:
        assert found == Stopped(started=False)
    elif job.attempt > job.spec.max_attempts or job.crashes > max_crashes:
        assert found == Crashed()
    else:
        assert found is None
    if found is not None:
        change = decide(job, found)
        assert change.refund
        assert not change.started
        assert change.event in {Event.CANCEL, Event.FAIL}


@given(st.integers(1, 20), st.integers(0, 5), st.lists(outcomes, max_size=60))
def test_no_history_of_outcomes_starts_a_body_too_often(
    max_attempts: int, max_crashes: int, history: list[Outcome]
) -> None:
    """Claims count, changes refund: the body starts with attempts 1 to the limit, no other."""
    attempt = 0
    for outcome in history:
        attempt += 1
        held = job(attempt=attempt, max_attempts=max_attempts)
        assert precheck(held, max_crashes=max_crashes) is None
        change = decide(held, outcome)
        attempt -= change.refund
        if change.event in {Event.COMPLETE, Event.FAIL, Event.CANCEL}:
            break
        assert 0 <= attempt < max_attempts or change.event is not Event.RETRY
        assert 0 <= attempt <= max_attempts


def test_failed_needs_an_error_and_keeps_it_when_final() -> None:
    assert decide(job(), Failed(ERROR, final=True)).error is ERROR
