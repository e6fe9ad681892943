"""What a memory store holds, and the few ways in which a row changes its place.

Heaps are cleaned lazily: an entry counts only while its row still says the same.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from taskflow._core.flows import CALL_EDGES
from taskflow._core.records import JobSpec, Lane, later
from taskflow._core.states import Event, JobState, after, sources_of
from taskflow.drivers.memory.leases import Leases
from taskflow.drivers.memory.ready import Ready
from taskflow.drivers.memory.waiting import News

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskflow.drivers.memory.rows import Link, Row

__all__ = ("Tables", "due_of")

STAGED: Final = sources_of(Event.STAGE)

_Heap = list[tuple[int, int, "Row"]]


def due_of(spec: JobSpec, now: int) -> int:
    """When a job that may go from ``now`` on is due."""
    return later(now, spec.delay) if spec.eta is None else spec.eta


class Tables:
    """The rows of one store by everything they are found by. Used under the store's lock.

    Attributes:
        rows: Every job, by id, in the order of acceptance.
        holders: Live rows by their unique key.
        links: Edges by the id of their predecessor.
        unsynced: Rows whose state their edges have yet to be told.
        edge_budget: Edges that this call may still work off.
        news: What this step did that somebody may wait for.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.rows: dict[str, Row] = {}
        self.ready: dict[str, dict[Lane, Ready]] = {}
        self.later: _Heap = []
        self.leases = Leases()
        self.expiries: _Heap = []
        self.holders: dict[str, list[Row]] = {}
        self.paused: set[str] = set()
        self.links: dict[str, list[Link]] = {}
        self.unsynced: deque[Row] = deque()
        self.edge_budget = CALL_EDGES
        self.news = News()

    # ---- places

    def place(self, row: Row) -> None:
        """Put a job that has not begun where claim, stage and lapse will find it."""
        if row.expires_at is not None:
            heappush(self.expiries, (row.expires_at, row.seq, row))
        if row.state is JobState.AVAILABLE:
            self._ready_of(row).push(row)
        elif row.state in STAGED:
            heappush(self.later, (row.due, row.seq, row))
        else:
            return
        self.news.work.add((row.spec.queue, row.spec.lane))

    def _ready_of(self, row: Row) -> Ready:
        lanes = self.ready.get(row.spec.queue)
        if lanes is None:
            lanes = self.ready[row.spec.queue] = {}
        ready = lanes.get(row.spec.lane)
        if ready is None:
            ready = lanes[row.spec.lane] = Ready()
        return ready

    def hold_key(self, row: Row) -> None:
        """Note a live row that may hold a unique key."""
        if row.spec.unique is not None:
            self.holders.setdefault(row.spec.unique.key, []).append(row)

    def drop_key(self, row: Row) -> None:
        """It is live no more."""
        if row.spec.unique is not None:
            held = self.holders[row.spec.unique.key]
            held.remove(row)
            if not held:
                del self.holders[row.spec.unique.key]

    def holders_of(self, key: str) -> list[Row]:
        """The jobs that hold a key, the earliest first: live, and in one of the states that they
        named themselves.
        """
        holders = [
            row for row in self.holders.get(key, ())
            if row.spec.unique is not None and row.state in row.spec.unique.states
        ]  # fmt: skip
        return sorted(holders, key=lambda row: row.seq)

    # ---- what is there

    def served(self, queues: Sequence[str], *, others: bool) -> Iterator[str]:
        """The queues to serve, in order, without paused ones."""
        yield from (queue for queue in queues if queue not in self.paused)
        if others:
            yield from sorted(self.ready.keys() - set(queues) - self.paused)

    def top(self, queue: str, lane: Lane) -> Row | None:
        """The most urgent available job, left where it is."""
        ready = self.ready.get(queue, {}).get(lane)
        return None if ready is None else ready.top()

    def next_due(self, queues: Sequence[str], *, others: bool) -> int | None:
        """When the next scheduled job of these queues is due."""
        while self.later and not _is_later(self.later[0]):
            heappop(self.later)
        if others and not self.paused:
            return self.later[0][0] if self.later else None
        dues = [
            entry[0] for entry in self.later
            if (others or entry[2].spec.queue in queues)
            and entry[2].spec.queue not in self.paused and _is_later(entry)
        ]  # fmt: skip
        return min(dues, default=None)

    # ---- time

    def stage(self, now: int) -> None:
        """Make what is due available."""
        while self.later and self.later[0][0] <= now:
            entry = heappop(self.later)
            if _is_later(entry):
                row = entry[2]
                row.state = after(row.state, Event.STAGE)
                self.place(row)


def _is_later(entry: tuple[int, int, Row]) -> bool:
    due, _, row = entry
    return row.state in STAGED and row.due == due
