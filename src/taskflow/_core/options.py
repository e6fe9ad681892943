"""The options of a task, resolved once: chain over class attribute or decorator over default."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from taskflow._core.retry import Backoff

__all__ = ("PRIORITIES", "TaskOptions")

PRIORITIES = range(-100, 101)
"""Priority numbers; a higher one comes first."""


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's definition says; ``None`` leaves it to the app's settings.

    Attributes:
        queue: The queue's name.
        max_attempts: Runs at most, the first one included.
        retry_delay: The delay between attempts.
        timeout: Seconds that one attempt may run; 0 means no limit, against an app's default.
        priority: -100 to 100, higher first.
        expires_in: Seconds after dispatch from which the job must not start any more.
        result_ttl: Seconds that a result is kept; ``math.inf`` for ever, 0 not at all.
        tags: Text by which jobs are found again.
    """

    queue: str | None = None
    max_attempts: int | None = None
    retry_delay: Backoff | None = None
    timeout: float | None = None
    priority: int | None = None
    expires_in: float | None = None
    result_ttl: float | None = None
    tags: Mapping[str, str] | None = None

    def over(self, below: TaskOptions) -> TaskOptions:
        """These options where they say something, else those ``below``; tags are merged."""
        chosen = {
            name: value if (value := getattr(self, name)) is not None else getattr(below, name)
            for name in self.__struct_fields__
        }
        chosen["tags"] = {**(below.tags or {}), **(self.tags or {})} or None
        return TaskOptions(**chosen)
