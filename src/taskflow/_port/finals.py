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


class _Caller:
    """One who waits. ``woken`` says: look again; you were told, or shall lead."""

    __slots__ = ("is_told", "job_id", "woken")

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.is_told = False
        self.woken = anyio.Event()


class Finals:
    """Leaders and followers around ``Driver.wait``; a newcomer makes the leader start over."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._callers: dict[_Caller, None] = {}
        self._leading: CancelScope | None = None

    async def hint(self, job_id: str) -> None:
        """Return when the job may be final, at the latest after a few seconds."""
        mine = _Caller(job_id)
        self._callers[mine] = None
        if self._leading is not None:
            self._leading.cancel()
        try:
            with anyio.move_on_after(FLOOR):
                while not mine.is_told:
                    if self._leading is None:
                        await self._lead(mine)
                    else:
                        await self._follow(mine)
        finally:
            del self._callers[mine]
            self._hand_over()

    async def _follow(self, mine: _Caller) -> None:
        mine.woken = anyio.Event()
        await mine.woken.wait()

    async def _lead(self, mine: _Caller) -> None:
        while not mine.is_told:
            with CancelScope() as self._leading:
                try:
                    # Who was told already and has not run yet would end the wait at once.
                    ids = frozenset(one.job_id for one in self._callers if not one.is_told)
                    wake = await self._port.wait(Wait(ids=ids, timeout=FLOOR))
                finally:
                    self._leading = None
                for caller in self._callers:
                    if caller.job_id in wake.finals:
                        caller.is_told = True
                        caller.woken.set()

    def _hand_over(self) -> None:
        """Have the next caller lead; one that leaves instead hands over in its turn."""
        if self._leading is None and self._callers:
            next(iter(self._callers)).woken.set()
