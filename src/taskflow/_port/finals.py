"""Waiting for jobs to end: all callers of one app share one wait of the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from anyio import CancelScope

from taskflow._core.records import Wait

if TYPE_CHECKING:
    from taskflow._port.port import Port

__all__ = ("Finals",)

FLOOR: Final = 5.0
"""Seconds after which a caller looks at its job without any hint."""


class Finals:
    """Leaders and followers around ``Driver.wait``; a newcomer makes the leader start over."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._wanted: dict[anyio.Event, str] = {}
        self._leading: CancelScope | None = None

    async def hint(self, job_id: str) -> None:
        """Return when the job may be final, at the latest after a few seconds."""
        mine = anyio.Event()
        self._wanted[mine] = job_id
        if self._leading is not None:
            self._leading.cancel()
        try:
            with anyio.move_on_after(FLOOR):
                while not mine.is_set():
                    if self._leading is None:
                        await self._lead(mine)
                    else:
                        await mine.wait()
        finally:
            del self._wanted[mine]
            if self._leading is None and self._wanted:
                # Somebody has to lead on: a spurious hint makes one of them come back.
                next(iter(self._wanted)).set()

    async def _lead(self, mine: anyio.Event) -> None:
        while not mine.is_set():
            with CancelScope() as self._leading:
                try:
                    ids = frozenset(self._wanted.values())
                    wake = await self._port.wait(Wait(ids=ids, timeout=FLOOR))
                finally:
                    self._leading = None
                for event, job_id in self._wanted.items():
                    if job_id in wake.finals:
                        event.set()
