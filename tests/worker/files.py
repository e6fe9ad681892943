"""What bodies in other processes write, awaited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio


async def appears(path: Path, seconds: float = 8) -> str:
    """The text of a file that another process writes in one step."""
    await becomes(path.exists, seconds, f"{path.name} appears")
    return path.read_text()  # noqa: ASYNC240 - a word


async def becomes(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll another process's doings."""
    with anyio.move_on_after(seconds):
        while not condition():
            await anyio.sleep(0.01)
        return
    raise AssertionError(f"not within {seconds:g} s: {what}")
