"""Simulations: the real worker in virtual time, with seeded deaths and faults."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import hypothesis
import pytest

from taskflow.testing.simulate import simulate


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of planted faults are no news."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


COUNT = {25: 4, 100: 10}.get(hypothesis.settings().max_examples, 1000)


@pytest.mark.slow("simulates hours")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(4))
def test_seeds_run_clean(part: int) -> None:
    # In the deep profile many short ones: another seed finds more than another hour.
    hours, jobs = (0.1, 15) if COUNT > 100 else (0.5, 40)
    for seed in range(part, COUNT, 4):
        simulate(seed, hours=hours, jobs=jobs)


@pytest.mark.slow("simulates hours")
@pytest.mark.timeout(120)
def test_a_seed_replays() -> None:
    assert simulate(7, hours=0.2, jobs=15) == simulate(7, hours=0.2, jobs=15)


@pytest.mark.slow("simulates hours")
@pytest.mark.timeout(120)
def test_faults_and_deaths_happen() -> None:
    found = simulate(3)
    assert found.jobs == 40
    assert min(found.faults[kind] for kind in ("before", "after", "delay", "cancel")) > 0
    assert found.runs >= found.jobs - found.states.get("cancelled", 0)
    assert found.deaths > 0
