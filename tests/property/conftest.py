"""Room for a thousand examples a test, in the profile that draws so many."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if settings.default is None or settings.default.max_examples <= 100:
        return
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(120))
