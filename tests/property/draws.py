"""What the properties of the core draw: specs, leased jobs, outcomes."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from taskflow._core.flows import Edge, On
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
from taskflow._core.records import Conflict, ErrorInfo, JobSpec, Lane, Leased, Token, Unique
from taskflow._core.retry import Backoff
from taskflow._core.states import JobState

text = st.text(max_size=20)
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
zones: st.SearchStrategy[Any] = st.one_of(
    # A few: hypothesis looks through the whole history of each zone once, which takes a while.
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]).map(ZoneInfo),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
)
instants = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
durations = st.one_of(
    st.integers(0, 10**6), st.floats(0, allow_nan=False, allow_infinity=False), st.just(-0.0)
)
backoffs = st.builds(
    Backoff,
    base=durations,
    factor=st.one_of(st.integers(1, 10), st.floats(1, 1e9)),
    cap=durations,
    jitter=st.booleans(),
)
uniques = st.builds(
    Unique,
    key=names,
    states=st.lists(st.sampled_from(JobState), unique=True).map(tuple),
    on_conflict=st.sampled_from(Conflict),
)
specs = st.builds(
    JobSpec,
    id=names,
    kind=names,
    payload=st.binary(max_size=50),
    queue=st.one_of(st.just("default"), names),
    lane=st.sampled_from(Lane),
    priority=st.integers(-100, 100),
    delay=durations,
    eta=st.none() | instants,
    max_attempts=st.integers(1, 2**31 - 1),
    retry=backoffs,
    timeout=st.none() | durations,
    expires_in=st.none() | durations,
    result_ttl=st.none() | durations,
    failed_ttl=st.none() | durations,
    tags=st.dictionaries(text, text, max_size=4),
    unique=st.none() | uniques,
    after=st.lists(st.builds(Edge, names, st.sampled_from(On)), max_size=3).map(tuple),
)


def _leased(
    limit: int, above: int, backoff: Backoff, counts: tuple[int, int, int], asked: bool
) -> Leased:
    spec = JobSpec(id=f"j-{counts}", kind="k", payload=b"", max_attempts=limit, retry=backoff)
    crashes, interruptions, parks = counts
    return Leased(
        token=Token(spec.id, limit + 5, "r-1"), spec=spec, attempt=max(1, limit + 2 - above),
        crashes=crashes, interruptions=interruptions, parks=parks, cancel_requested=asked,
    )  # fmt: skip


leased = st.builds(
    _leased,
    st.integers(1, 20),
    st.integers(0, 22),
    backoffs,
    st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 20) | st.integers(0, 2**63)),
    st.booleans(),
)
"""A claimed job, attempts over the limit included: workers may have died under it."""

errors = st.builds(ErrorInfo, type=st.sampled_from(["ValueError", "Boom"]), message=text)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Completed, st.binary(max_size=20)),
    st.builds(Failed, errors, st.booleans()),
    st.builds(Retried, st.none() | durations),
    st.builds(Snoozed, durations),
    st.builds(Discarded, text),
    st.just(Parked()),
    st.builds(Released, st.booleans()),
    st.builds(Stopped, st.booleans()),
    st.just(Crashed()),
)
