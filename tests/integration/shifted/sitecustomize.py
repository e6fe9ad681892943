"""The wall clock of this process, and of its children, is CLOCK_SHIFT seconds off."""

import os
import time

SHIFT = int(os.environ["CLOCK_SHIFT"])
NANO = 1_000_000_000

_time, _time_ns = time.time, time.time_ns
_clock, _clock_ns = time.clock_gettime, time.clock_gettime_ns


def _shifted_time() -> float:
    return _time() + SHIFT


def _shifted_time_ns() -> int:
    return _time_ns() + SHIFT * NANO


def _shifted_clock(clock: int) -> float:
    return _clock(clock) + (SHIFT if clock == time.CLOCK_REALTIME else 0)


def _shifted_clock_ns(clock: int) -> int:
    return _clock_ns(clock) + (SHIFT * NANO if clock == time.CLOCK_REALTIME else 0)


time.time, time.time_ns = _shifted_time, _shifted_time_ns
time.clock_gettime, time.clock_gettime_ns = _shifted_clock, _shifted_clock_ns
