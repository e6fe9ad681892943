"""What the store refuses for good is said once: the worker goes on trying, its log stays short."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taskflow.errors import DriverError

__all__ = ("Refusals",)

logger = logging.getLogger("taskflow.worker")

FRESH: Final = 60.0
"""Seconds for which a refusal counts when the operation was not tried again."""


class Refusals:
    """Lost rights, missing tables: one outage, whichever operations it hits. Lives on the worker's
    loop. Every refusal but the first is logged on level debug, with its traceback.
    """

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}
        self._since = 0.0

    def __contains__(self, operation: str) -> bool:
        return self._latest.get(operation, 0.0) > time.monotonic() - FRESH

    def note(self, operation: str, error: DriverError) -> None:
        """An operation was refused; it will be tried again."""
        is_first = not any(one in self for one in self._latest)
        if is_first:
            self._latest.clear()
            self._since = time.monotonic()
            logger.error("%s: the store refuses, trying again: %s", operation, error)
        logger.debug("%s: the store refuses", operation, exc_info=error)
        self._latest[operation] = time.monotonic()

    def clear(self, operation: str) -> None:
        """It was done."""
        if self._latest.pop(operation, None) is not None and not self._latest:
            seconds = time.monotonic() - self._since
            logger.info("%s: the store refuses no more, after %.1f s", operation, seconds)
