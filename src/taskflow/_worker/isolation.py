"""Runs a body's coroutine step by step in a context of its own.

Child tasks, threads, timeouts, async generators and cancellation behave as in a task of their own;
what a body leaves in a context variable is gone with it.
"""

from __future__ import annotations

import contextvars
import decimal
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

__all__ = ("CleanContext", "Stepping", "drive")


class Stepping:
    """What the event loop's thread is inside of at this moment; ``None`` between steps.

    Read by the renewal thread, so that a stalled loop names the task that stalls it.
    """

    __slots__ = ("attempt",)

    def __init__(self) -> None:
        self.attempt: Any = None


class CleanContext:
    """The context that a worker starts with; each attempt gets a copy.

    ``decimal`` keeps a mutable object in its variable, which a copy would share: where the
    variable is set, each copy starts with a decimal context of its own.
    """

    def __init__(self) -> None:
        self._clean = contextvars.copy_context()
        self._has_decimal = any(variable.name == "decimal_context" for variable in self._clean)

    def copy(self) -> contextvars.Context:
        """A fresh context for one attempt."""
        context = self._clean.copy()
        if self._has_decimal:
            context.run(decimal.setcontext, decimal.Context())
        return context


@types.coroutine
def drive(
    coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, stepping: Stepping,
    attempt: Any, on_wait: Callable[[], None] | None = None,
) -> Generator[Any, Any, Any]:  # fmt: skip
    """Await ``coroutine`` inside ``context``; the outer task lends its place on the loop.

    ``on_wait`` is called when the body waits for the first time.
    """
    send: Callable[..., Any] = coroutine.send
    step: Callable[..., Any] = send
    argument: Any = None
    while True:
        stepping.attempt = attempt
        try:
            yielded = context.run(step, argument)
        except StopIteration as stop:
            return stop.value
        finally:
            stepping.attempt = None
        if on_wait is not None:
            on_wait()
            on_wait = None
        try:
            argument = yield yielded
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        except BaseException as exc:  # handed to the body, which decides
            step, argument = coroutine.throw, exc
        else:
            step = send
