"""Walking over queues by hops through an index that starts with the queue's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskflow.drivers.sqlite.tx import Tx

__all__ = ("due_queues", "next_due", "ready_queues")

_NEXT_READY: Final = "SELECT min(queue) FROM {jobs} WHERE {claimable} AND queue > ?"
_NEXT_STAGEABLE: Final = "SELECT min(queue) FROM {jobs} WHERE {stageable} AND queue > ?"
_NEXT_DUE: Final = "SELECT min(due) FROM {jobs} WHERE {stageable} AND queue = ?"


def ready_queues(tx: Tx, named: Sequence[str], *, others: bool) -> Iterator[str]:
    """The named queues in their order, then, if asked for, the others with available jobs."""
    yield from named
    if others:
        yield from _hop(tx, _NEXT_READY, named)


def due_queues(tx: Tx, named: Sequence[str], *, others: bool) -> Iterator[str]:
    """The same with the others that have scheduled or retryable jobs."""
    yield from named
    if others:
        yield from _hop(tx, _NEXT_STAGEABLE, named)


def next_due(tx: Tx, named: Sequence[str], *, others: bool) -> int | None:
    """When the next scheduled or retryable job of these queues is due."""
    dues = (
        tx.run(_NEXT_DUE, (queue,)).fetchone()[0] for queue in due_queues(tx, named, others=others)
    )
    return min((due for due in dues if due is not None), default=None)


def _hop(tx: Tx, next_queue: str, named: Sequence[str]) -> Iterator[str]:
    name = ""
    while (found := tx.run(next_queue, (name,)).fetchone()[0]) is not None:
        name = found
        if name not in named:
            yield name
