"""Where ``execute`` runs.

A lane turns a claimed job into an Outcome and nothing else; it never touches the driver.
Cancelling a lane's call ends the work or says that it could not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from taskflow._core.outcomes import Outcome
    from taskflow._worker.attempt import Attempt

__all__ = ("Runner",)


class Runner(Protocol):
    """What a slot needs of its lane."""

    async def run(self, attempt: Attempt) -> Outcome | None:
        """Run the body; ``None`` when it was left behind at shutdown."""
        ...

    async def failed(self, attempt: Attempt) -> None:
        """Run the task's ``failed`` hook."""
        ...

    async def aclose(self) -> None:
        """The slot ends."""
        ...
