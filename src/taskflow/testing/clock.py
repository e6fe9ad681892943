"""The clock that tests shift, so that nothing waits."""

from __future__ import annotations

import time
from typing import final

from taskflow._core.records import MICRO

__all__ = ("VirtualClock",)


@final
class VirtualClock:
    """A clock that stands still until it is shifted.

    Give it to a driver or an app (``clock=``). A driver that lives by its server's clock adds
    ``offset`` to that.

    Args:
        start: Seconds of Unix time. Default: now.
    """

    def __init__(self, start: float | None = None) -> None:
        self._start = round((time.time() if start is None else start) * MICRO)
        self._shifted = 0

    @property
    def offset(self) -> float:
        """Seconds by which it has been shifted."""
        return self._shifted / MICRO

    def shift(self, seconds: float) -> None:
        """Move on; a negative number is a jump back, which a wall clock may do and a lease
        clock never does.
        """
        self._shifted += round(seconds * MICRO)

    def now(self) -> int:
        """Microseconds of Unix time."""
        return self._start + self._shifted

    def uptime(self) -> int:
        """Microseconds of a clock for leases."""
        return self._start + self._shifted
