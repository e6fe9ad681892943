"""What people ask a store: lists, counts, and what became of a replay."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from taskflow._core.records import JobRecord
from taskflow._core.states import JobState

__all__ = ("JobQuery", "Page", "QueueStats", "Replayed")


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to list; what is ``None`` or empty asks for nothing.

    Attributes:
        states: In one of these states.
        kind, queue: Of this kind, in this queue.
        tags: With all of these tags.
        since, until: Dispatched at or after, and before, these instants (µs).
        limit: The most in one page.
        cursor: Where the last page ended.
    """

    states: frozenset[JobState] = frozenset()
    kind: str | None = None
    queue: str | None = None
    tags: Mapping[str, str] = {}
    since: int | None = None
    until: int | None = None
    limit: int = 100
    cursor: str | None = None

    def accepts(self, record: JobRecord, dispatched: int) -> bool:
        """Whether a job belongs on the list; ``dispatched`` is its instant (µs)."""
        return (
            (not self.states or record.state in self.states)
            and self.kind in (None, record.kind)
            and self.queue in (None, record.queue)
            and (self.since is None or dispatched >= self.since)
            and (self.until is None or dispatched < self.until)
            and all(record.tags.get(name) == value for name, value in self.tags.items())
        )


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, the latest accepted first; ``cursor`` leads on, ``None`` is the end.

    A page may be short, even empty, and yet lead on. A job that matches throughout stands on
    exactly one page.
    """

    jobs: list[JobRecord]
    cursor: str | None = None


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """One queue at one moment.

    Attributes:
        counts: Jobs by state; states without jobs are absent.
        paused: Nothing is handed out.
        oldest: Seconds that the available job which is due the longest has been due.
        finished: Jobs that completed or failed in the last 60 seconds.
    """

    queue: str
    counts: Mapping[JobState, int]
    paused: bool = False
    oldest: float | None = None
    finished: int = 0

    @property
    def in_flight(self) -> int:
        """Jobs that run."""
        return self.counts.get(JobState.RUNNING, 0)

    @property
    def rate(self) -> float:
        """Jobs a second that completed or failed, over the last minute."""
        return self.finished / 60


class Replayed(StrEnum):
    """What became of a replay."""

    REPLAYED = "replayed"
    """The job is available again, with all its attempts."""
    REFUSED = "refused"
    """It has neither failed nor been cancelled; nothing was done."""
    CONFLICT = "conflict"
    """Another live job holds its unique key; nothing was done."""
    UNKNOWN = "unknown"
    """There is no such job."""
