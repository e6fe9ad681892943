"""Flows are jobs and edges, nothing else: when an edge lets its successor go.

An edge is stored with the successor and names the predecessor. A job with unfinished predecessors
waits; it is unblocked when the last one has ended as its edge asks for, and skipped (cancelled)
when one ended the other way.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from taskflow._core.states import FINAL, JobState

__all__ = ("CALL_EDGES", "JOB_EDGES", "SKIPPED", "Edge", "On", "fires")

JOB_EDGES: Final = 100
"""Successors that one job's end counts down in its own step; more are released by claims and
expires, a bounded number at a time: releasing 10,000 in one step would stop everybody else."""
CALL_EDGES: Final = 500
"""Edges that one call works off at most, over all its changes."""
SKIPPED: Final = "skipped"
"""The reason of a job that was cancelled because a predecessor ended the other way."""


class On(StrEnum):
    """How a predecessor must end."""

    SUCCESS = "success"
    """It completed."""
    FAILURE = "failure"
    """It failed for good."""
    END = "end"
    """It ended, in whatever way."""


class Edge(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A predecessor, by its id, and how it must end."""

    id: str
    on: On = On.SUCCESS


def fires(on: On, state: JobState) -> bool | None:
    """Whether a predecessor in this state lets its successor go; ``None``: it has not ended."""
    if state not in FINAL:
        return None
    if on is On.END:
        return True
    return state is (JobState.COMPLETED if on is On.SUCCESS else JobState.FAILED)
