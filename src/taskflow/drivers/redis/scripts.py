"""The Lua scripts: one file an operation, what they share in ``lua/lib``, and the law of jobs."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import msgspec

from taskflow._core.flows import CALL_EDGES, JOB_EDGES, SKIPPED, On, fires
from taskflow._core.states import FINAL, Event, JobState, after, sources_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("Script", "script")

_NEEDS: Final = "-- needs:"
_EVENTS: Final = (
    Event.STAGE, Event.CLAIM, Event.EXPIRE, Event.LAPSE, Event.SKIP, Event.REJOIN, Event.REPLAY,
    Event.CANCEL,
)  # fmt: skip
"""What happens to jobs by a script's own doing; settles bring the states that the law gives."""


class Script(msgspec.Struct, frozen=True):
    """A script as it is sent, and by what name the server knows it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script of an operation."""
    own = _read(name)
    first = own.splitlines()[0]
    needs = first.removeprefix(_NEEDS).split() if first.startswith(_NEEDS) else []
    text = "\n".join([_law(), *(_read(f"lib/{one}") for one in ("rows", "sets", *needs)), own])
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    return (files("taskflow.drivers.redis") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


@cache
def _law() -> str:
    """The law of jobs in Lua, so that no script repeats an arrow."""
    law = {
        event.value: _table({state: after(state, event) for state in sources_of(event)})
        for event in _EVENTS
    }
    fresh = {
        "due": after(None, Event.ENQUEUE),
        "later": after(None, Event.ENQUEUE, due_later=True),
        "blocked": after(None, Event.ENQUEUE, blocked=True),
    }
    marks = [
        _table({state: str({None: 0, True: 1, False: 2}[fires(on, state)]) for state in JobState},
               quoted=False)
        for on in On
    ]  # fmt: skip
    return "\n".join(
        (
            f"local LAW = {{{', '.join(f'{event} = {table}' for event, table in law.items())}}}",
            f"local FINAL = {_table(dict.fromkeys(sorted(FINAL), 'true'), quoted=False)}",
            f"local FRESH = {_table(fresh)}",
            f"local FIRES = {{{', '.join(marks)}}}",
            f"local JOB_EDGES, CALL_EDGES, SKIPPED = {JOB_EDGES}, {CALL_EDGES}, '{SKIPPED}'",
        )
    )


def _table(pairs: Mapping[str, str], *, quoted: bool = True) -> str:
    shown = (f"{key!s} = {repr(str(value)) if quoted else value}" for key, value in pairs.items())
    return f"{{{', '.join(sorted(shown))}}}"
