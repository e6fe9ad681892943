"""Available jobs in memory, the most urgent first."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from taskflow._core.states import JobState

if TYPE_CHECKING:
    from taskflow.drivers.memory.rows import Row

__all__ = ("Ready",)

_Entry = tuple[tuple[int, int, int], int, "Row"]


class Ready:
    """The available jobs of one queue and lane.

    Most come in the order in which they will leave, and stand in a line; the others are in a heap.
    An entry counts only while its row still waits where this entry put it.
    """

    __slots__ = ("_heap", "_line")

    def __init__(self) -> None:
        self._line: deque[_Entry] = deque()
        self._heap: list[_Entry] = []

    def push(self, row: Row) -> None:
        """Put a job where it belongs."""
        row.placed += 1
        entry = (row.order, row.placed, row)
        if not self._line or entry > self._line[-1]:
            self._line.append(entry)
        else:
            heappush(self._heap, entry)

    def top(self) -> Row | None:
        """The most urgent job, left where it is."""
        line, heap = self._line, self._heap
        while line and not _counts(line[0]):
            line.popleft()
        while heap and not _counts(heap[0]):
            heappop(heap)
        if heap and (not line or heap[0] < line[0]):
            return heap[0][2]
        return line[0][2] if line else None

    def take(self) -> Row | None:
        """The most urgent job, taken out."""
        row = self.top()
        if row is not None:
            if self._heap and self._heap[0][2] is row:
                heappop(self._heap)
            else:
                self._line.popleft()
        return row


def _counts(entry: _Entry) -> bool:
    _, placed, row = entry
    return row.placed == placed and row.state is JobState.AVAILABLE
