"""The tasks of ``taskflow run demo``, in a module that process children can import."""

from __future__ import annotations

import time

import anyio

from taskflow import (
    AsyncProcessTask,
    AsyncTask,
    SyncProcessTask,
    SyncTask,
    current,
    task,
)

__all__ = ("Count", "Fetch", "Flaky", "Hash", "Hopeless", "Later", "Primes", "shout", "square")


class Fetch(AsyncTask[str]):
    """Waits, as for a network, and reports progress."""

    name: str

    async def execute(self) -> str:
        """Fetch it."""
        for step in range(4):
            await current().progress(step / 4, f"part {step + 1} of 4")
            await anyio.sleep(0.15)
        return f"fetched {self.name}"


class Hash(SyncTask[str]):
    """Blocks a thread."""

    text: str

    def execute(self) -> str:
        """Hash it."""
        time.sleep(0.2)
        return f"{hash(self.text) & 0xFFFF:04x}"


class Primes(SyncProcessTask[int]):
    """Computes outside this process's GIL."""

    below: int

    def execute(self) -> int:
        """Count them."""
        return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, self.below))


class Count(AsyncProcessTask[int]):
    """A coroutine on the event loop of a child process."""

    to: int

    async def execute(self) -> int:
        """Count."""
        for _ in range(self.to):
            await anyio.sleep(0.01)
        return self.to


class Flaky(AsyncTask[str]):
    """Fails twice, then works."""

    max_attempts = 5
    retry_delay = 0.2

    async def execute(self) -> str:
        """Try."""
        if current().attempt < 3:
            raise ConnectionError("not yet")
        return f"worked in attempt {current().attempt}"


class Hopeless(AsyncTask[None]):
    """Fails for good."""

    max_attempts = 2
    retry_delay = 0.2

    async def execute(self) -> None:
        """Fail."""
        raise ValueError("this one always fails")


class Later(AsyncTask[str]):
    """Dispatched with a delay."""

    async def execute(self) -> str:
        """Say when."""
        return "a second later"


@task
async def square(x: int) -> int:
    """A coroutine function."""
    return x * x


@task
def shout(text: str) -> str:
    """A plain function."""
    return text.upper()
