"""Room for many examples a test, and for Hypothesis to build its tables when it runs first."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seconds = 60 if settings().max_examples <= 100 else 300
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(seconds))
