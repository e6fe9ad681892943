"""The one place, beside four drivers, that may know asyncio.

Holds what AnyIO does not tell: whether a cancellation on asyncio was asked for natively.
"""

from __future__ import annotations

import asyncio

__all__ = ("native_cancel_requests",)


def native_cancel_requests() -> int:
    """How many ``Task.cancel()`` calls are pending on the running asyncio task; 0 on trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if task is None else task.cancelling()
