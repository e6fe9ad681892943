"""The tables, their names and the version that guards them.

Finished jobs never stay in the hot table: its indexes are what every claim walks. Each index
covers only the rows of the states it serves; the conditions come from the law of jobs, so that a
query and its index always say the same words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from taskflow._core.states import Event, JobState, sources_of
from taskflow.drivers.sqlite.faults import DRIVER
from taskflow.errors import ConfigError, SchemaMismatchError

if TYPE_CHECKING:
    import sqlite3

__all__ = ("VERSION", "Names", "install", "is_current", "script")

VERSION: Final = 1

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}", re.ASCII)

_KEPT: Final = (
    "seq, id, kind, queue, lane, priority, state, due, attempt, max_attempts, crashes,"
    " interruptions, parks, delivery, worker_id, cancel_requested, fin_delivery, fin_request,"
    " fin_event, fin_state, reason, expires_at, enqueued_at, started_at, progress, error, spec,"
    " digest"
)
"""What a finished row takes over from the hot one."""

_ENDED: Final = {
    "state": ":state",
    "attempt": "attempt - :refund",
    "reason": ":reason",
    "fin_delivery": "delivery",
    "fin_request": "request_id",
    "fin_event": ":event",
    "fin_state": ":state",
}
"""What ends with its holder's word takes these from there, and the rest as it is."""

_LEASED: Final = (
    "seq, id, delivery, request_id, spec, attempt, crashes, interruptions, parks,"
    " cancel_requested, enqueued_at, due, priority, max_attempts, expires_at"
)
_RECORD: Final = (
    "id, state, reason, attempt, crashes, interruptions, parks, delivery, cancel_requested,"
    " enqueued_at, due, started_at, expires_at, worker_id, progress, error, spec, seq"
)
_LISTED: Final = (
    "seq < :top AND seq >= :low AND (:kind IS NULL OR kind = :kind)"
    " AND (:queue IS NULL OR queue = :queue) AND (:since IS NULL OR enqueued_at >= :since)"
    " AND (:until IS NULL OR enqueued_at < :until)"
    " AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))"
)
_FIN: Final = "id, fin_delivery, fin_request, fin_event, fin_state"

_COLUMNS: Final = """
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    queue TEXT NOT NULL,
    lane TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    due INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    parks INTEGER NOT NULL DEFAULT 0,
    delivery INTEGER NOT NULL DEFAULT 0,
    worker_id TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    fin_delivery INTEGER,
    fin_request TEXT,
    fin_event TEXT,
    fin_state TEXT,
    reason TEXT NOT NULL DEFAULT '',
    expires_at INTEGER,
    enqueued_at INTEGER NOT NULL,
    started_at INTEGER,
    progress BLOB,
    error BLOB,
    spec BLOB NOT NULL,
    digest BLOB NOT NULL,
"""

_FINISHED: Final = f"""(
    seq INTEGER PRIMARY KEY,{_COLUMNS}
    finished_at INTEGER NOT NULL,
    forget_at INTEGER
)"""

_TABLES: Final = (
    f"""CREATE TABLE {{jobs}} (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,{_COLUMNS}
    request_id TEXT,
    lease_until INTEGER,
    boot TEXT,
    unique_key TEXT,
    result_ttl INTEGER,
    failed_ttl INTEGER
)""",
    f"CREATE TABLE {{finished}} {_FINISHED}",
    f"CREATE TABLE {{dead}} {_FINISHED}",
    "CREATE TABLE {results} (seq INTEGER PRIMARY KEY, result BLOB NOT NULL)",
    """CREATE TABLE {edges} (
    to_id TEXT NOT NULL, from_id TEXT NOT NULL, "on" TEXT NOT NULL, fired INTEGER,
    PRIMARY KEY (to_id, from_id)
) WITHOUT ROWID""",
    "CREATE TABLE {unsynced} (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)",
    "CREATE TABLE {paused} (queue TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE {schema} (version INTEGER NOT NULL)",
    "CREATE INDEX {ready_index} ON {jobs} (queue, lane, priority DESC, due, seq) WHERE {claimable}",
    "CREATE INDEX {due_index} ON {jobs} (queue, due) WHERE {stageable}",
    "CREATE INDEX {stage_index} ON {jobs} (due) WHERE {stageable}",
    "CREATE INDEX {lease_index} ON {jobs} (lease_until) WHERE {running}",
    "CREATE INDEX {request_index} ON {jobs} (request_id) WHERE {running}",
    "CREATE INDEX {asked_index} ON {jobs} (worker_id) WHERE cancel_requested = 1",
    "CREATE INDEX {expiry_index} ON {jobs} (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX {key_index} ON {jobs} (unique_key) WHERE unique_key IS NOT NULL",
    "CREATE INDEX {finished_index} ON {finished} (forget_at) WHERE forget_at IS NOT NULL",
    "CREATE INDEX {dead_index} ON {dead} (forget_at) WHERE forget_at IS NOT NULL",
    "CREATE INDEX {ended_index} ON {finished} (finished_at)",
    "CREATE INDEX {died_index} ON {dead} (finished_at)",
    "CREATE INDEX {edge_index} ON {edges} (from_id)",
)


_INSERT: Final = "INSERT INTO {schema} (version) VALUES (?)"


class Names:
    """The words that fill the placeholders of every statement.

    Args:
        queue_table: The hot table; the others but one are named after it.
        dead_letter_table: The table of failed jobs.

    Raises:
        ConfigError: A name is not a plain word, is reserved, or is used twice.
    """

    def __init__(self, queue_table: str, dead_letter_table: str) -> None:
        _check("sqlite_queue_table", queue_table)
        _check("sqlite_dead_letter_table", dead_letter_table)
        parts = ("finished", "results", "edges", "unsynced", "paused", "schema")
        tables = {part: f"{queue_table}_{part}" for part in parts}
        tables |= {"jobs": queue_table, "dead": dead_letter_table}
        if len({name.lower() for name in tables.values()}) < len(tables):
            raise ConfigError(
                option="sqlite_dead_letter_table", value=dead_letter_table,
                problem=f"is a table of the queue {queue_table!r} already: choose another name",
            )  # fmt: skip
        indexes = (
            "ready",
            "due",
            "stage",
            "lease",
            "request",
            "asked",
            "expiry",
            "key",
            "finished",
            "dead",
            "ended",
            "died",
            "edge",
        )
        self.schema = tables["schema"]
        self.words = {part: f'"{name}"' for part, name in tables.items()}
        self.words |= {f"{part}_index": f'"{queue_table}_{part}_ix"' for part in indexes}
        self.words |= {
            "running": f"state = '{JobState.RUNNING}'",
            "claimable": _in_state(Event.CLAIM),
            "stageable": _in_state(Event.STAGE),
            "lapsable": _in_state(Event.LAPSE),
            "kept": _KEPT,
            "ended": ", ".join(_ENDED.get(name, name) for name in _KEPT.split(", ")),
            "leased": _LEASED,
            "record": _RECORD,
            "fin": _FIN,
            "listed": _LISTED,
        }


def _check(option: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower().startswith("sqlite_"):
        raise ConfigError(
            option=option, value=name,
            problem="a table name is a letter or _, then up to 40 letters, digits or _, and does "
            "not start with sqlite_",
        )  # fmt: skip


def _in_state(event: Event) -> str:
    names = ", ".join(f"'{state}'" for state in sorted(sources_of(event)))
    return f"state IN ({names})" if "," in names else f"state = {names}"


def is_current(conn: sqlite3.Connection, names: Names) -> bool:
    """Whether the tables are there, in this version's form.

    Raises:
        SchemaMismatchError: A newer version of taskflow made them. Nothing was changed.
    """
    there = conn.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (names.schema,)
    ).fetchone()
    if there is None:
        return False
    row = conn.execute("SELECT max(version) FROM {schema}".format_map(names.words)).fetchone()
    if row[0] != VERSION:
        raise SchemaMismatchError(
            driver=DRIVER, found=row[0], expected=VERSION, remedy="upgrade taskflow"
        )
    return True


def script(names: Names) -> str:
    """What ``install`` executes, as text."""
    statements = (*_TABLES, _INSERT.replace("?", str(VERSION)))
    return "".join(f"{one.format_map(names.words)};\n" for one in statements)


def install(conn: sqlite3.Connection, names: Names) -> None:
    """Create what is missing, in one transaction; several processes may do so at once."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        if not is_current(conn, names):
            for statement in _TABLES:
                conn.execute(statement.format_map(names.words))
            conn.execute(_INSERT.format_map(names.words), (VERSION,))
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
