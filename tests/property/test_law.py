"""The table of transitions is the one that was agreed, and nothing can go round it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow._core.states import (
    FINAL,
    SETTLES,
    TRANSITIONS,
    Event,
    JobState,
    after,
    sources_of,
)
from taskflow.errors import IllegalTransitionError

LAW = """
    -           enqueue   available scheduled waiting
    waiting     unblock   available scheduled
    waiting     skip      cancelled
    scheduled   stage     available
    retryable   stage     available
    available   claim     running
    running     complete  completed
    running     retry     retryable cancelled
    running     snooze    scheduled cancelled
    running     park      scheduled cancelled
    running     release   available cancelled
    running     fail      failed
    running     expire    available
    waiting     lapse     cancelled
    scheduled   lapse     cancelled
    available   lapse     cancelled
    retryable   lapse     cancelled
    waiting     cancel    cancelled
    scheduled   cancel    cancelled
    available   cancel    cancelled
    retryable   cancel    cancelled
    running     cancel    running cancelled
    cancelled   rejoin    waiting
    failed      replay    available
    cancelled   replay    available
"""
"""The law as it was written down before the code: from, event, to."""

STATES: tuple[JobState | None, ...] = (None, *JobState)
FLAGS = [
    dict(zip(("due_later", "blocked", "cancel_requested", "by_holder"), values, strict=True))
    for values in product((False, True), repeat=4)
]
events = st.sampled_from(Event)
flags = st.sampled_from(FLAGS)


def written_law() -> dict[tuple[str | None, str], set[str]]:
    lines = (line.split() for line in LAW.split("\n") if line.strip())
    return {(None if state == "-" else state, event): set(to) for state, event, *to in lines}


def test_the_table_is_the_law() -> None:
    table = {pair: set(targets) for pair, targets in TRANSITIONS.items()}
    assert table == written_law()
    assert all(len(set(targets)) == len(targets) for targets in TRANSITIONS.values())


@pytest.mark.parametrize("state", STATES)
def test_after_is_total(state: JobState | None) -> None:
    """Any state, event and circumstances: a state that the table allows, or the one error."""
    for event, circumstances in product(Event, FLAGS):
        allowed = TRANSITIONS.get((state, event))
        if allowed is None:
            with pytest.raises(IllegalTransitionError) as caught:
                after(state, event, **circumstances)
            assert (caught.value.state, caught.value.event) == (state, event)
        else:
            assert after(state, event, **circumstances) in allowed


def test_every_arrow_is_taken_under_some_circumstances() -> None:
    for (state, event), allowed in TRANSITIONS.items():
        assert {after(state, event, **flags) for flags in FLAGS} == set(allowed)


@given(flags)
def test_where_several_arrows_leave_the_circumstances_choose(
    circumstances: dict[str, bool],
) -> None:
    due = JobState.SCHEDULED if circumstances["due_later"] else JobState.AVAILABLE
    asked, holder = circumstances["cancel_requested"], circumstances["by_holder"]
    enqueued = JobState.WAITING if circumstances["blocked"] else due
    assert after(None, Event.ENQUEUE, **circumstances) is enqueued
    assert after(JobState.WAITING, Event.UNBLOCK, **circumstances) is due
    for event, otherwise in {
        Event.RETRY: JobState.RETRYABLE,
        Event.SNOOZE: JobState.SCHEDULED,
        Event.PARK: JobState.SCHEDULED,
        Event.RELEASE: JobState.AVAILABLE,
    }.items():
        wanted = JobState.CANCELLED if asked else otherwise
        assert after(JobState.RUNNING, event, **circumstances) is wanted
    cancelled = JobState.CANCELLED if holder else JobState.RUNNING
    assert after(JobState.RUNNING, Event.CANCEL, **circumstances) is cancelled


@given(flags)
def test_an_end_stays_what_it_was_when_a_cancellation_comes_late(
    circumstances: dict[str, bool],
) -> None:
    assert after(JobState.RUNNING, Event.COMPLETE, **circumstances) is JobState.COMPLETED
    assert after(JobState.RUNNING, Event.FAIL, **circumstances) is JobState.FAILED
    assert after(JobState.RUNNING, Event.EXPIRE, **circumstances) is JobState.AVAILABLE


@given(st.lists(st.tuples(events, flags), max_size=60))
def test_any_sequence_of_events_keeps_to_the_law(
    steps: list[tuple[Event, dict[str, bool]]],
) -> None:
    """A refused event leaves the job where it was; a final state is left by a person only."""
    state = after(None, Event.ENQUEUE)
    for event, circumstances in steps:
        try:
            following = after(state, event, **circumstances)
        except IllegalTransitionError:
            assert (state, event) not in TRANSITIONS
            continue
        if state in FINAL:
            assert event in {Event.REPLAY, Event.REJOIN}
        if following is JobState.RUNNING and state is not JobState.RUNNING:
            assert (state, event) == (JobState.AVAILABLE, Event.CLAIM)
        state = following


def test_completed_is_for_ever() -> None:
    assert all(state is not JobState.COMPLETED for state, _ in TRANSITIONS)


def test_every_state_is_reached_and_none_is_a_trap() -> None:
    reached: set[JobState | None] = {None}
    for _ in STATES:
        reached |= {
            to for (state, _), targets in TRANSITIONS.items() if state in reached for to in targets
        }
    assert reached == set(STATES)
    ending: set[JobState | None] = set(FINAL)
    for _ in STATES:
        ending |= {state for (state, _), targets in TRANSITIONS.items() if ending & set(targets)}
    assert ending == set(STATES)


def test_sources_say_what_the_table_says() -> None:
    for event, state in product(Event, JobState):
        assert (state in sources_of(event)) == ((state, event) in TRANSITIONS)
    assert sources_of(Event.ENQUEUE) == set()


def test_settles_end_an_attempt() -> None:
    """A holder may say just what leads out of running, save that the lease ran out."""
    leaving = {event for state, event in TRANSITIONS if state is JobState.RUNNING}
    assert leaving - SETTLES == {Event.EXPIRE}
    assert leaving > SETTLES
    for event, circumstances in product(SETTLES, FLAGS):
        spoken = {**circumstances, "by_holder": True}
        assert after(JobState.RUNNING, event, **spoken) is not JobState.RUNNING
