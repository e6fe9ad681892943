"""Where a body is: the stack of a suspended coroutine, down to the line that it waits at."""

from __future__ import annotations

import traceback
from typing import Any

__all__ = ("stack_of",)


def stack_of(coroutine: Any) -> str:
    """The lines of a coroutine and of everything that it awaits, as in a traceback."""
    lines = []
    while coroutine is not None:
        frame = _first(coroutine, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        code = frame.f_code
        lines.append(traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_qualname))
        coroutine = _first(coroutine, "cr_await", "gi_yieldfrom", "ag_await")
    return "".join(traceback.StackSummary.from_list(lines).format())


def _first(owner: Any, *names: str) -> Any:
    for name in names:
        found = getattr(owner, name, None)
        if found is not None:
            return found
    return None
