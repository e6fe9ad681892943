"""Which app is open here: where ``dispatch()`` goes when nobody says.

Nothing resets a context variable, because an app may be entered and left in different tasks; a
closed app is simply never found.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from typing import Any, Protocol

import anyio.from_thread
from anyio.lowlevel import EventLoopToken, RunVar, current_token

from taskflow.errors import NoAppError

__all__ = ("close_here", "enter_context", "find_app", "open_here", "run_on_loop")


class OpenApp(Protocol):
    """What an app shows of itself here."""

    @property
    def loop(self) -> EventLoopToken | None:
        """The event loop on which it is open; ``None`` when it is closed."""
        ...


_open: RunVar[list[Any]] = RunVar("taskflow_open_apps")
_entered: ContextVar[weakref.ref[Any] | None] = ContextVar("taskflow_entered_app", default=None)


def open_here(app: OpenApp) -> None:
    """Note an app as open on this event loop and as this context's own."""
    _open.set([*_open.get([]), app])
    enter_context(app)


def enter_context(app: OpenApp) -> None:
    """Make an open app this context's own."""
    _entered.set(weakref.ref(app))


def close_here(app: OpenApp) -> None:
    """Forget an app."""
    _open.set([other for other in _open.get([]) if other is not app])


def find_app(app: Any = None) -> Any:
    """The app given, else the one that is open here.

    Raises:
        NoAppError: None is open here, or several are and none of them is this context's.
    """
    if app is not None:
        if app.loop is None:
            raise NoAppError(problem=f"{app!r} is not open: enter it with `async with app:`")
        return app
    entered = _entered.get()
    mine = entered() if entered is not None else None
    is_open = mine is not None and mine.loop is not None
    apps = _apps_here()
    if apps is None:
        # A thread: the lanes of a worker hand their context in; AnyIO's threads know their loop.
        if is_open:
            return mine
        try:
            return anyio.from_thread.run_sync(find_app)
        except RuntimeError:
            raise NoAppError(
                problem="no event loop runs here: use `with app.sync() as sync:` from plain code"
            ) from None
    if len(apps) == 1:
        return apps[0]
    if is_open and any(mine is other for other in apps):
        return mine
    raise NoAppError(
        problem="several apps are open on this event loop: name one with `dispatch(app=...)`"
        if apps
        else "no app is open here: enter one with `async with app:` or pass `dispatch(app=...)`"
    )


def _apps_here() -> list[Any] | None:
    try:
        return _open.get([])
    except RuntimeError:
        return None  # no event loop runs in this thread


def run_on_loop(loop: EventLoopToken | None, function: Any, *args: Any) -> Any:
    """Run a coroutine function on an app's event loop from another thread, and wait for it.

    Raises:
        NoAppError: This is the event loop's own thread, or the app is closed.
    """
    if loop is None:
        raise NoAppError(problem="the app is not open: enter it with `async with app:`")
    if _loop() is not None:
        raise NoAppError(problem="this would block the event loop: use `await task.dispatch()`")
    return anyio.from_thread.run(function, *args, token=loop)


def _loop() -> EventLoopToken | None:
    try:
        return current_token()
    except RuntimeError:
        return None
