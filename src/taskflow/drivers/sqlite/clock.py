"""Where the driver reads the time: the wall for due times, the uptime for leases.

A lease is counted on a clock that never jumps and goes on while the machine sleeps. Such a clock
starts anew with the machine, so each lease also carries the boot it belongs to.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

__all__ = ("SystemClock", "boot_id")

_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def boot_id() -> str:
    """The name of this boot of the machine; empty where there is none to read."""
    try:
        return _BOOT_FILE.read_text("ascii").strip()
    except OSError:
        return ""


class SystemClock:
    """The machine's own clocks. Without a boot id, leases are counted on the wall clock."""

    def __init__(self) -> None:
        self._source = _BOOTTIME if boot_id() else None

    def now(self) -> int:
        """Microseconds of Unix time."""
        return time.time_ns() // 1000

    def uptime(self) -> int:
        """Microseconds since the machine started, sleep included."""
        if self._source is None:
            return self.now()
        return time.clock_gettime_ns(self._source) // 1000
