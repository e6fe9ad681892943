"""The words that fill the placeholders of the .sql files: names, states of the law, numbers."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from taskflow._core.flows import CALL_EDGES, JOB_EDGES, SKIPPED, On
from taskflow._core.queries import Replayed
from taskflow._core.records import Accepted, Cancelled, Conflict, Verdict
from taskflow._core.states import FINAL, Event, JobState, sources_of
from taskflow.drivers.postgres.rows import ANYTHING, LONGEST
from taskflow.errors import ConfigError

__all__ = ("CHANGE", "DRAFT", "WAY", "Names")

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}", re.ASCII)
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")

_COLUMNS: Final = [
    "seq",
    "due",
    "enqueued_at",
    "lease_until",
    "started_at",
    "finished_at",
    "forget_at",
    "expires_at",
    "delay",
    "eta",
    "result_ttl",
    "failed_ttl",
    "priority",
    "attempt",
    "max_attempts",
    "crashes",
    "interruptions",
    "parks",
    "delivery",
    "fin_delivery",
    "cancel_requested",
    "state",
    "id",
    "kind",
    "queue",
    "lane",
    "request_id",
    "worker_id",
    "fin_request",
    "fin_event",
    "fin_state",
    "reason",
    "tags",
    "unique_key",
    "unique_states",
    "progress",
    "error",
    "result",
    "spec",
]
_ENDED: Final = {
    "lease_until": "NULL",
    "finished_at": "v_now",
    "forget_at": f"v_now + CASE now_state WHEN '{JobState.FAILED}' THEN failed_ttl"
    " ELSE result_ttl END",
    "attempt": "attempt - w_refund[way]",
    "interruptions": "interruptions + w_interrupted[way]",
    "parks": "parks + w_parked[way]",
    "fin_delivery": "delivery",
    "fin_request": "request_id",
    "fin_event": "w_event[way]",
    "fin_state": "now_state",
    "state": "now_state",
    "reason": f"CASE now_state WHEN '{JobState.CANCELLED}' THEN '{JobState.CANCELLED}'"
    " ELSE w_reason[way] END",
    "error": "coalesce(w_error[way], error)",
    "result": "new_result",
}
"""What ends by its holder's word takes these from there, and the rest as it is."""

CLAIMED: Final = {
    "id": "text", "queue": "text", "priority": "integer", "seq": "bigint", "delivery": "integer",
    "attempt": "integer", "crashes": "integer", "interruptions": "integer", "parks": "integer",
    "cancel_requested": "boolean", "enqueued_at": "bigint", "due": "bigint",
    "expires_at": "bigint", "spec": "bytea",
}  # fmt: skip
"""What a claim hands out; ``rows.leased`` reads it in this order."""
RECORD: Final = {
    "seq": "bigint", "state": "text", "reason": "text", "attempt": "integer",
    "crashes": "integer", "interruptions": "integer", "parks": "integer", "delivery": "integer",
    "cancel_requested": "boolean", "enqueued_at": "bigint", "due": "bigint",
    "started_at": "bigint", "finished_at": "bigint", "expires_at": "bigint", "worker_id": "text",
    "progress": "bytea", "error": "bytea", "spec": "bytea",
}  # fmt: skip
"""What a record is made of; ``rows.record`` reads it in this order."""
DRAFT: Final = {
    "id": "text", "kind": "text", "queue": "text", "lane": "text", "priority": "integer",
    "delay": "bigint", "eta": "bigint", "max_attempts": "integer", "expires_in": "bigint",
    "result_ttl": "bigint", "failed_ttl": "bigint", "tags": "text", "unique_key": "text",
    "unique_states": "text", "on_conflict": "text", "after": "text", "spec": "bytea",
}  # fmt: skip
"""What a job brings along, in the order of the arrays of an enqueue."""
CHANGE: Final = {"id": "text", "delivery": "integer", "way": "integer", "result": "bytea"}
"""What a change has for itself, in the order of the first arrays of a settle."""
WAY: Final = {
    "request": "text", "event": "text", "plain": "text", "asked": "text", "ends": "boolean",
    "delay": "bigint", "error": "bytea", "reason": "text", "refund": "integer",
    "interrupted": "integer", "parked": "integer",
}  # fmt: skip
"""What many changes have in common: each names its way by number. In the order of the arrays.

``plain`` is the state that follows, ``asked`` the one when a cancellation was asked for; ``ends``
says that both are final.
"""

_SETTINGS: Final = (
    "SET search_path = pg_catalog, pg_temp", "SET lock_timeout = '10s'", "SET jit = off",
    "SET plan_cache_mode = force_generic_plan",
    "SET enable_seqscan = off", "SET enable_bitmapscan = off", "SET enable_sort = off",
    "SET enable_hashjoin = off", "SET enable_mergejoin = off",
)  # fmt: skip
"""Every statement walks an index in its order, whatever the statistics say of a table that was
empty a moment ago; without jit, which would compile plans for what they seem to cost."""


class Names:
    """The tables of one store.

    Args:
        queue_table: The hot table; all others but one are named after it. ``schema.table``, or
            ``table`` in ``public``.
        dead_letter_table: The table of failed jobs; in the same schema unless it says another.

    Raises:
        ConfigError: A name is not a plain word, or is used twice.
    """

    def __init__(self, queue_table: str, dead_letter_table: str) -> None:
        schema, table = _split("postgres_queue_table", queue_table, "public")
        dead = _split("postgres_dead_letter_table", dead_letter_table, schema)
        parts = ("finished", "edges", "releases", "paused", "schema")
        if dead in {(schema, table), *((schema, f"{table}_{part}") for part in parts)}:
            raise ConfigError(
                option="postgres_dead_letter_table", value=dead_letter_table,
                problem=f"is a table of the queue {queue_table!r} already: choose another name",
            )  # fmt: skip
        self._schema, self._table = schema, table
        self.store = f"{schema}.{table}"
        self.schemas = tuple(dict.fromkeys((schema, dead[0])))
        self.channel = f"taskflow_{_number(self.store):016x}"
        self._words = {part: self._named(part) for part in parts} | {
            "jobs": f'"{schema}"."{table}"', "dead": f'"{dead[0]}"."{dead[1]}"',
            "all_jobs": self._named("all"), "counter": self._named("counter"),
            "counter_text": self._named("counter"), "draft": self._named("draft"),
            "salt_key": str(_signed(f"key {self.store}")),
            "salt_request": str(_signed(f"request {self.store}")), **_WORDS,
        }  # fmt: skip

    def _named(self, part: str) -> str:
        return f'"{self._schema}"."{self._table}_{part}"'

    def fill(self, text: str) -> str:
        """The text with every placeholder filled; raises ``KeyError`` for an unknown one."""
        return _PLACEHOLDER.sub(lambda match: self._word(match[1]), text)

    def _word(self, word: str) -> str:
        if word.startswith("f_"):
            return self._named(word[2:])
        if word.startswith("ix_"):
            return f'"{self._table}_{word[3:]}_ix"'
        return self._words[word]


def _split(option: str, name: str, schema: str) -> tuple[str, str]:
    before, dot, after = name.rpartition(".")
    chosen = (before if dot else schema, after)
    if not all(_PLAIN.fullmatch(part) for part in chosen) or chosen[0].startswith("pg_"):
        raise ConfigError(
            option=option, value=name,
            problem="expected table or schema.table, each a letter or _, then up to 39 letters, "
            "digits or _",
        )  # fmt: skip
    return chosen


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _signed(text: str) -> int:
    return _number(text) - (1 << 63)


def _in_state(states: frozenset[JobState]) -> str:
    names = ", ".join(f"'{state}'" for state in sorted(states))
    return f"state IN ({names})" if len(states) > 1 else f"state = {names}"


def _quoted(states: frozenset[JobState]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


def _words() -> dict[str, str]:
    words = {str(state): str(state) for state in JobState}
    words |= {f"on_{on}": str(on) for on in On}
    words |= {str(one): str(one) for kind in (Accepted, Conflict, Verdict) for one in kind}
    words |= {str(one): str(one) for kind in (Cancelled, Replayed) for one in kind}
    words |= {
        "replay_conflict": str(Replayed.CONFLICT), "is_final": str(Cancelled.FINAL),
        "running": _in_state(frozenset({JobState.RUNNING})),
        "running_state": str(JobState.RUNNING), "claimable": _in_state(sources_of(Event.CLAIM)),
        "stageable": _in_state(sources_of(Event.STAGE)),
        "lapsable": _in_state(sources_of(Event.LAPSE)),
        "replayable": _quoted(sources_of(Event.REPLAY)), "final": _quoted(FINAL),
        "skipped": SKIPPED, "replaced": "replaced", "expired": "expired",
        "job_edges": str(JOB_EDGES), "call_edges": str(CALL_EDGES), "sweep": "1000", "few": "200",
        "longest": str(LONGEST), "anything": ANYTHING,
        "settings": " ".join(_SETTINGS),
        "claimed": ", ".join(f"j.{name}" for name in CLAIMED),
        "claimed_types": ", ".join(f"{name} {kind}" for name, kind in CLAIMED.items()),
        "record": ", ".join(f"j.{name}" for name in RECORD),
        "record_types": ", ".join(f"{name} {kind}" for name, kind in RECORD.items()),
        "ended": ", ".join(_ENDED.get(name, name) for name in _COLUMNS),
        "draft_parameters": ", ".join(f"p_{name} {kind}[]" for name, kind in DRAFT.items()),
        "draft_arrays": ", ".join(f"p_{name}" for name in DRAFT),
        "change_parameters": ", ".join(
            [f"c_{name} {kind}[]" for name, kind in CHANGE.items()]
            + [f"w_{name} {kind}[]" for name, kind in WAY.items()]),
        "change_arguments": ", ".join(
            [f"c_{name}" for name in CHANGE] + [f"w_{name}" for name in WAY]),
        "change_arrays": ", ".join(f"c_{name}" for name in CHANGE),
        "change_names": ", ".join(CHANGE),
        "draft_names": ", ".join(DRAFT), "draft_names_p": ", ".join(f"p_{name}" for name in DRAFT),
    }  # fmt: skip
    return words


_WORDS: Final = _words()
