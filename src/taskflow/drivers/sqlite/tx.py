"""What one operation sees of the store, inside the writer's transaction."""

from __future__ import annotations

import json
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from taskflow._core.flows import CALL_EDGES
from taskflow.drivers.sqlite.news import News

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from taskflow.drivers.sqlite.connection import Store

__all__ = ("Statements", "Tx", "listed", "named")

_CHUNK = 512


class Statements:
    """Fills the table names into statements, once each."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        self._made: dict[tuple[str, int], str] = {}

    def text(self, sql: str, ids: int = 0) -> str:
        """The statement with its names, and room for so many at ``{ids}`` or ``{pairs}``."""
        made = self._made.get((sql, ids))
        if made is None:
            rooms = {"ids": ",".join("?" * ids), "pairs": ",".join(["(?,?)"] * ids)}
            made = sql.format_map({**self._words, **rooms})
            self._made[sql, ids] = made
        return made


class Tx:
    """One operation's hold on the open transaction.

    Attributes:
        now: Microseconds of Unix time, read once for the operation.
        uptime: The lease clock, likewise.
        news: What others are to be told once the transaction is on the disk.
        edge_budget: Edges that this operation may still work off.
    """

    def __init__(self, store: Store, statements: Statements) -> None:
        clock = store.place.clock
        self.now, self.uptime, self.boot = clock.now(), clock.uptime(), store.boot
        self.news = News()
        self.edge_budget = CALL_EDGES
        self._conn = store.conn
        self._statements = statements

    @cached_property
    def has_edges(self) -> bool:
        """There are flows in the store: without any, nothing is asked about them."""
        return self.run("SELECT 1 FROM {edges} LIMIT 1").fetchone() is not None

    @cached_property
    def paused(self) -> frozenset[str]:
        """The paused queues."""
        return frozenset(row[0] for row in self.run("SELECT queue FROM {paused}"))

    def run(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Cursor:
        """Execute one statement."""
        return self._conn.execute(self._statements.text(sql), params)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each row of parameters."""
        self._conn.executemany(self._statements.text(sql), rows)

    def by_ids(self, sql: str, ids: Iterable[str]) -> list[tuple[Any, ...]]:
        """All rows of a statement that names the ids as ``{ids}``.

        Ids are bound, not passed as JSON, which would cut them at a NUL; their number is padded
        to a power of two so that few statements are prepared.
        """
        wanted = list(ids)
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(wanted), _CHUNK):
            part: list[str | None] = [*wanted[start : start + _CHUNK]]
            room = 1 << (len(part) - 1).bit_length()
            part.extend([None] * (room - len(part)))
            # The ids may stand several times in one statement, as in a union.
            times = sql.count("{ids}")
            rows += self._conn.execute(self._statements.text(sql, room), part * times).fetchall()
        return rows

    def many_pairs(self, sql: str, pairs: Sequence[tuple[object, object]]) -> None:
        """Execute a statement that names the pairs as ``{pairs}``: one step for many of them.

        Their number is padded like that of ids, with pairs of NULL.
        """
        for start in range(0, len(pairs), _CHUNK):
            part = pairs[start : start + _CHUNK]
            room = 1 << (len(part) - 1).bit_length()
            values = [*chain.from_iterable(part), *[None] * (2 * (room - len(part)))]
            self._conn.execute(self._statements.text(sql, room), values)

    def by_ids_run(self, sql: str, ids: Iterable[str], *first: Any) -> None:
        """Execute a statement that names the ids as ``{ids}``, after other parameters."""
        wanted = list(ids)
        for start in range(0, len(wanted), _CHUNK):
            part: list[str | None] = [*wanted[start : start + _CHUNK]]
            room = 1 << (len(part) - 1).bit_length()
            part.extend([None] * (room - len(part)))
            self._conn.execute(self._statements.text(sql, room), (*first, *part))


def listed(seqs: Iterable[int]) -> str:
    """Row numbers as the JSON that ``json_each`` reads."""
    return json.dumps(list(seqs))


def named(words: Iterable[str]) -> str:
    """Queues or lanes as the JSON that ``json_each`` reads; none of them has a NUL in it."""
    return json.dumps(list(words))
