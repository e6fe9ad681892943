"""Calling into an event loop from another thread without waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.lowlevel import EventLoopToken

__all__ = ("backend_of", "post")


def post(token: EventLoopToken, function: Callable[..., object], *args: object) -> bool:
    """Have ``function`` called soon on the loop; False when the loop is gone.

    Never blocks: whoever waited for a stalled loop would stand still with it.
    """
    native: Any = token.native_token
    threadsafe = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    try:
        threadsafe(function, *args)
    except RuntimeError:  # closed (asyncio); trio's RunFinishedError is one, too
        return False
    return True


def backend_of(token: EventLoopToken) -> str:
    """The name of an event loop's kind, as ``anyio.run`` takes it."""
    return "trio" if hasattr(token.native_token, "run_sync_soon") else "asyncio"
