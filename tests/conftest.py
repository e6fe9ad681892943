"""Fixtures for every test: each async test runs on both event loops. Hypothesis profiles."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings

pytest_plugins = ["pytester"]

# No explain phase: it traces every line, at many times the cost of the test itself.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink)

settings.register_profile("dev", max_examples=25, deadline=None, phases=PHASES)
settings.register_profile("ci", max_examples=100, deadline=None, phases=PHASES, derandomize=True)
settings.register_profile("deep", max_examples=1000, deadline=None, phases=PHASES)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_caller() -> Iterator[None]:
    """What whoever runs the tests has set for taskflow is not there."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TASKFLOW_")]:
            patch.delenv(name)
        yield


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The contract runs many programs in one test."""
    from taskflow.testing.contract import DriverContract

    for item in items:
        owner = getattr(item, "cls", None)
        if owner is not None and issubclass(owner, DriverContract):
            item.add_marker(pytest.mark.timeout(600))
