"""Who holds what in memory, and until when."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskflow.drivers.memory.rows import Row

__all__ = ("Leases",)


class Leases:
    """Running jobs by the claim that holds them.

    A claim, not each of its jobs, has an entry in the heap: a time at which to look at what it
    still holds. Renewals leave the heap alone.
    """

    def __init__(self) -> None:
        self._claims: dict[str, dict[str, Row]] = {}
        self._heap: list[tuple[int, str]] = []

    def hold(self, request_id: str, rows: Sequence[Row], until: int) -> None:
        """These are held under a request; their ``lease_until`` says until when."""
        if rows:
            self._claims[request_id] = {row.spec.id: row for row in rows}
            self.look_at(until, request_id)

    def look_at(self, until: int, request_id: str) -> None:
        """See at ``until`` which leases of a request have run out."""
        heappush(self._heap, (until, request_id))

    def leave(self, row: Row) -> None:
        """No longer leased."""
        held = self._claims.get(row.request_id)
        if held is not None:
            held.pop(row.spec.id, None)
            if not held:
                del self._claims[row.request_id]

    def under(self, request_id: str) -> list[Row]:
        """What is still held under a request, in the order of its claim."""
        return list(self._claims.get(request_id, {}).values())

    def __iter__(self) -> Iterator[Row]:
        for held in self._claims.values():
            yield from held.values()

    def ended(self, uptime: int, limit: int) -> list[Row]:
        """Up to ``limit`` jobs whose lease has run out; they are leased no more."""
        ended: list[Row] = []
        while self._heap and self._heap[0][0] <= uptime and len(ended) < limit:
            _, request_id = heappop(self._heap)
            held = self.under(request_id)
            dead = [row for row in held if row.lease_until <= uptime][: limit - len(ended)]
            for row in dead:
                self.leave(row)
            ended += dead
            left = self._claims.get(request_id)
            if left:
                self.look_at(min(row.lease_until for row in left.values()), request_id)
        return ended
