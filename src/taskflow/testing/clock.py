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
        self._jumped = 0

    @property
    def offset(self) -> float:
        """Seconds by which the wall clock has been shifted and has jumped."""
        return (self._shifted + self._jumped) / MICRO

    def shift(self, seconds: float) -> None:
        """Let time pass."""
        self._shifted += round(seconds * MICRO)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back; no time passes."""
        self._jumped += round(seconds * MICRO)

    def now(self) -> int:
        """Microseconds of Unix time."""
        return self._start + self._shifted + self._jumped

    def uptime(self) -> int:
        """Microseconds of a clock that never jumps, for leases."""
        return self._start + self._shifted
