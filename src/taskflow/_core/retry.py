"""How long a failed job waits before its next attempt.

Jitter is drawn from a CRC of the job's id and attempt, so the function stays pure and a replayed
run waits exactly as long. Halving at most follows "equal jitter" in Brooker, *Exponential Backoff
And Jitter* (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import math
from datetime import timedelta
from zlib import crc32

import msgspec

__all__ = ("Backoff", "seconds")


def seconds(value: float | timedelta, *, what: str, least: float = 0.0) -> float:
    """Turn a duration in seconds or a timedelta into float seconds.

    Raises:
        ValueError: It is not a finite number of at least ``least`` seconds; names ``what``.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what}: expected seconds or a timedelta, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < least:
        raise ValueError(f"{what}: expected at least {least:g} seconds, got {value!r}")
    return number + 0.0  # no minus zero


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An exponential delay between attempts, with a cap and jitter.

    Attributes:
        base: Seconds after the first failed attempt. Default 5.
        factor: Multiplier for each further failure, at least 1. Default 2.
        cap: Upper bound in seconds. Default 3600.
        jitter: Draw each delay from the upper half of the computed one. Default on.

    Raises:
        ValueError: A field is negative, not finite or no number, ``factor`` is below 1, or
            ``jitter`` is neither True nor False.
    """

    base: float = 5.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        for name, least in (("base", 0.0), ("factor", 1.0), ("cap", 0.0)):
            number = seconds(getattr(self, name), what=f"Backoff.{name}", least=least)
            # Whole numbers become floats: equal ones are encoded alike, and powers of them do not
            # grow without end.
            msgspec.structs.force_setattr(self, name, number)
        if not isinstance(self.jitter, bool):
            raise ValueError(f"Backoff.jitter: expected True or False, got {self.jitter!r}")

    @classmethod
    def fixed(cls, delay: float | timedelta) -> Backoff:
        """The same delay after each failure: what a plain number for ``retry_delay`` means."""
        exact = seconds(delay, what="retry_delay")
        return cls(base=exact, factor=1.0, cap=exact, jitter=False)

    def delay(self, attempt: int, job_id: str) -> float:
        """Seconds to wait after the failure of ``attempt`` (1 for the first run)."""
        try:
            full = min(self.cap, self.base * self.factor ** max(attempt - 1, 0))
        except OverflowError:
            full = self.cap if self.base else 0.0
        if not self.jitter:
            return full
        return full * (0.5 + 0.5 * crc32(f"{job_id}:{attempt}".encode()) / 0xFFFFFFFF)
