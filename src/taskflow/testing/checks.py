"""The register of contract checks: each has a name, a place in the table, and a coroutine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

import msgspec

from taskflow._core.records import Claim, JobSpec, Lane, Leased, Room, Token
from taskflow._core.retry import Backoff
from taskflow.abc import Capability
from taskflow.testing.bench import Bench

if TYPE_CHECKING:
    from taskflow.abc import Driver
    from taskflow.testing.clock import VirtualClock

__all__ = ("CHECKS", "Check", "OpenDriver", "check", "claim_of", "spec_of", "take")

OpenDriver = Callable[["VirtualClock"], AbstractAsyncContextManager["Driver"]]
"""What an author hands in: a context manager around an open driver on an empty store."""

LEASE: Final = 120.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One example test.

    Attributes:
        name: As in ``test_<name>``.
        needs: Capabilities without which it says nothing. None: level 1, every driver.
        run: Fails by raising.
        says: What it proves, one sentence.
    """

    name: str
    needs: frozenset[Capability]
    run: Callable[[Bench], Awaitable[None]]
    says: str


CHECKS: Final[dict[str, Check]] = {}
"""Every check by name, in the order of definition."""


def check(
    *needs: Capability,
) -> Callable[[Callable[[Bench], Awaitable[None]]], Callable[[Bench], Awaitable[None]]]:
    """Register a coroutine function as a check; its docstring's first line says what it proves."""

    def register(run: Callable[[Bench], Awaitable[None]]) -> Callable[[Bench], Awaitable[None]]:
        name = getattr(run, "__name__", "")
        says = (run.__doc__ or "").strip().splitlines()[0]
        CHECKS[name] = Check(name=name, needs=frozenset(needs), run=run, says=says)
        return run

    return register


def spec_of(job_id: str, **fields: object) -> JobSpec:
    """A job for a check."""
    given: dict[str, object] = {"kind": "Kind", "payload": b"\x80", "retry": Backoff.fixed(50.0)}
    return JobSpec(id=job_id, **(given | fields))  # type: ignore[arg-type]


def claim_of(
    request_id: str, *, queues: tuple[str, ...] = ("default",), free: int = 100, ahead: int = 0,
    lanes: tuple[Lane, ...] = (Lane.ASYNC,), others: bool = False, worker_id: str = "worker-1",
    lease: float = LEASE,
) -> Claim:  # fmt: skip
    """A claim for a check."""
    return Claim(
        queues=queues, rooms=dict.fromkeys(lanes, Room(free, ahead)), lease=lease,
        request_id=request_id, worker_id=worker_id, others=others,
    )  # fmt: skip


async def take(bench: Bench, job_id: str, **fields: object) -> Token:
    """Enqueue one job in a queue of its own and claim it; returns its token."""
    queue = str(fields.pop("queue", f"queue of {job_id}"))
    await bench.enqueue([spec_of(job_id, queue=queue, **fields)])
    jobs: list[Leased] = await bench.claim(claim_of(f"take-{job_id}", queues=(queue,)))
    return jobs[0].token
