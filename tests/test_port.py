"""Calls that are sent again: what their callers are told."""

from __future__ import annotations

import pytest

from taskflow._port import Port
from taskflow.drivers.memory import MemoryDriver
from taskflow.errors import (
    DriverError,
    DriverUnavailableError,
    OutcomeUnknownError,
    StoreRefusedError,
)

pytestmark = pytest.mark.anyio

LOST = OutcomeUnknownError(driver="test", problem="lost")
AWAY = DriverUnavailableError(driver="test", problem="away")
REFUSED = StoreRefusedError(driver="test", problem="no")


class Tries:
    """A call that meets these errors, the last one for ever."""

    def __init__(self, *errors: DriverError) -> None:
        self._errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if not self._errors:
            return "done"
        raise self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]


def port(timeout: float = 0.5) -> Port:
    return Port(MemoryDriver(), lease=60, call_timeout=timeout, instrument=None)


async def test_a_store_that_is_away_is_told_at_once() -> None:
    tries = Tries(AWAY)
    with pytest.raises(DriverUnavailableError):
        await port().resend("enqueue", 1, tries)
    assert tries.made == 1


@pytest.mark.parametrize("later", [AWAY, REFUSED], ids=["away", "refusing"])
async def test_what_was_perhaps_applied_stays_perhaps_applied(later: DriverError) -> None:
    """The first answer was lost; that a repeat was surely not applied says nothing of it."""
    tries = Tries(OutcomeUnknownError(driver="test", problem="lost"), later)
    with pytest.raises(OutcomeUnknownError) as caught:
        await port().resend("enqueue", 1, tries)
    assert caught.value.__cause__ is (REFUSED if later is REFUSED else None)
    assert tries.made == 2 if later is REFUSED else tries.made > 2


async def test_a_repeat_that_is_answered_settles_the_doubt() -> None:
    class Back(Tries):
        async def __call__(self) -> str:
            if self.made == 3:
                return "done"
            return await super().__call__()

    assert await port(10).resend("enqueue", 1, Back(LOST, AWAY, LOST, LOST)) == "done"
