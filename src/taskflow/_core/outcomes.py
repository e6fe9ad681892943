"""How an attempt ended, as values, and the exceptions by which a body says so itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from taskflow._core.records import ErrorInfo
from taskflow._core.retry import seconds

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = (
    "Crashed",
    "Completed",
    "ControlFlow",
    "Discard",
    "Discarded",
    "Failed",
    "Outcome",
    "Parked",
    "Released",
    "Retried",
    "Retry",
    "Snooze",
    "Snoozed",
    "Stopped",
)


class ControlFlow(Exception):
    """The base of what a body raises to steer its own job."""


class Snooze(ControlFlow):
    """Run me again in ``delay`` (seconds or a timedelta); no attempt is spent."""

    def __init__(self, delay: float | timedelta) -> None:
        self.delay = seconds(delay, what="Snooze")
        super().__init__(self.delay)


class Retry(ControlFlow):
    """This attempt failed; run me again, ``after`` seconds or by the task's own delay.

    On the last attempt the job fails.
    """

    def __init__(self, after: float | timedelta | None = None) -> None:
        self.after = None if after is None else seconds(after, what="Retry")
        super().__init__(self.after)


class Discard(ControlFlow):
    """Fail for good now, whatever attempts are left; ``reason`` is kept."""

    def __init__(self, reason: str = "") -> None:
        self.reason = str(reason)
        super().__init__(self.reason)


class Completed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The body returned; ``result`` is encoded."""

    result: bytes


class Failed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The body raised, timed out, or its payload or result was not readable.

    ``final`` when the task's ``should_retry`` refused or no attempt could do better.
    """

    error: ErrorInfo
    final: bool = False


class Retried(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The body asked for another attempt."""

    after: float | None = None


class Snoozed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The body asked to be run later."""

    delay: float


class Discarded(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The body gave up for good."""

    reason: str


class Parked(msgspec.Struct, frozen=True, tag=True, gc=False):
    """This worker does not know the kind."""


class Released(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Handed back: shutdown, or the slot broke before the body could end."""

    started: bool


class Stopped(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Stopped because its cancellation was asked for; ``started`` when the body had begun."""

    started: bool = True


class Crashed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Not begun: its workers died too often, or in its last attempt."""


Outcome = Completed | Failed | Retried | Snoozed | Discarded | Parked | Released | Stopped | Crashed
"""Everything that an attempt can come to."""
