"""Delays between attempts: bounded, growing, and the same each time they are asked for."""

from __future__ import annotations

import math
from datetime import timedelta

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from taskflow import Backoff
from taskflow._core.retry import seconds
from tests.property.draws import backoffs, durations, names

attempts = st.one_of(st.integers(1, 60), st.integers(1, 2**63))


def plain(backoff: Backoff) -> Backoff:
    return msgspec.structs.replace(backoff, jitter=False)


@example(Backoff(base=0, factor=2, cap=600, jitter=False), 2**31, "j")
@example(Backoff(base=2, factor=2, cap=600), 2**31, "j")
@given(backoffs, attempts, names)
def test_delays_are_finite_and_below_the_cap(backoff: Backoff, attempt: int, job: str) -> None:
    delay = backoff.delay(attempt, job)
    assert isinstance(delay, float)
    assert math.isfinite(delay)
    assert 0 <= delay <= backoff.cap


@given(backoffs, attempts, names)
def test_jitter_takes_at_most_half(backoff: Backoff, attempt: int, job: str) -> None:
    full = plain(backoff).delay(attempt, job)
    drawn = msgspec.structs.replace(backoff, jitter=True).delay(attempt, job)
    assert full * 0.5 <= drawn <= full


@given(backoffs, attempts, attempts, names)
def test_without_jitter_delays_never_fall(backoff: Backoff, one: int, two: int, job: str) -> None:
    exact = plain(backoff)
    earlier, later = sorted((one, two))
    assert exact.delay(earlier, job) <= exact.delay(later, job)


@given(backoffs, st.integers(1, 30), names)
def test_the_formula(backoff: Backoff, attempt: int, job: str) -> None:
    product = backoff.base
    for _ in range(attempt - 1):
        product *= backoff.factor
    wanted = min(backoff.cap, product)
    assert plain(backoff).delay(attempt, job) == pytest.approx(wanted, rel=1e-9, abs=1e-300)


def test_the_delays_of_the_readme() -> None:
    backoff = Backoff(base=2, factor=2, cap=600, jitter=False)
    assert [backoff.delay(n, "j") for n in range(1, 11)] == [
        2, 4, 8, 16, 32, 64, 128, 256, 512, 600,
    ]  # fmt: skip


@given(st.floats(0.001, 1e6), st.floats(1.001, 1e6), st.floats(0, 1e9), names)
def test_a_growing_delay_reaches_its_cap_and_stays(
    base: float, factor: float, cap: float, job: str
) -> None:
    backoff = Backoff(base=base, factor=factor, cap=cap, jitter=False)
    assert backoff.delay(2**31, job) == cap
    assert backoff.delay(2**63, job) == cap


@given(st.integers(1, 2**63), names)
def test_no_base_is_no_delay_however_often_it_failed(attempt: int, job: str) -> None:
    assert Backoff(base=0, factor=2, cap=600).delay(attempt, job) == 0


@given(backoffs, attempts, names)
def test_a_replayed_run_waits_exactly_as_long(backoff: Backoff, attempt: int, job: str) -> None:
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(backoff), type=Backoff)
    assert again == backoff
    assert again.delay(attempt, job) == backoff.delay(attempt, job)


def test_jitter_spreads_jobs_and_attempts() -> None:
    backoff = Backoff(base=100, factor=1, cap=100)
    drawn = [backoff.delay(attempt, f"job-{n}") for n in range(100) for attempt in (1, 2)]
    assert len(set(drawn)) > 190
    tenths = {int((delay - 50) / 5) for delay in drawn}
    assert tenths == set(range(10))


@given(durations, attempts, names)
def test_a_fixed_delay_is_the_same_after_each_failure(delay: float, attempt: int, job: str) -> None:
    assert Backoff.fixed(delay).delay(attempt, job) == delay


@given(st.timedeltas(min_value=timedelta(0)), attempts)
def test_a_timedelta_is_its_seconds(delay: timedelta, attempt: int) -> None:
    assert Backoff.fixed(delay).delay(attempt, "j") == delay.total_seconds()


@given(
    st.sampled_from(["base", "factor", "cap"]),
    st.one_of(st.floats(max_value=-1e-9), st.just(math.nan), st.just(math.inf), st.none()),
)
def test_what_cannot_be_a_delay_is_refused(field: str, value: float | None) -> None:
    fields: dict[str, object] = {field: value}
    with pytest.raises(ValueError, match=rf"Backoff\.{field}: expected") as caught:
        msgspec.structs.replace(Backoff(), **fields)
    assert repr(value) in str(caught.value)


@given(st.floats(0, 1, exclude_max=True))
def test_a_factor_that_shrinks_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="at least 1 seconds|at least 1"):
        Backoff(factor=factor)


@example(-0.0, 0.0)
@given(durations, st.floats(0, 1e9))
def test_seconds_reads_what_is_at_least_the_least(value: float, least: float) -> None:
    assume(value >= least)
    number = seconds(value, what="x", least=least)
    assert number == value
    assert isinstance(number, float)
    assert math.copysign(1, number) == 1


@pytest.mark.parametrize("value", [True, "5", None, math.nan, math.inf, -1, timedelta(-1), 1j])
def test_seconds_refuses_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="lease: expected"):
        seconds(value, what="lease")  # type: ignore[arg-type]


def test_seconds_refuses_numbers_that_no_float_holds() -> None:
    with pytest.raises(ValueError, match="lease: expected"):
        seconds(10**400, what="lease")
