"""What a worker and its process children say to each other: length-prefixed msgpack, typed.

No pickle, and nothing in a frame names code but the location that the parent took from its own
registry. Both sides check size and shape of what they read.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from taskflow._core.outcomes import (
    Completed,
    Discarded,
    Failed,
    Released,
    Retried,
    Snoozed,
    Stopped,
)
from taskflow._core.records import Enqueued, ErrorInfo, JobSpec, Leased, Progress
from taskflow.config import Config

__all__ = (
    "Answer",
    "Asked",
    "BadFrameError",
    "Begun",
    "Dispatch",
    "Done",
    "Hook",
    "HookDone",
    "Init",
    "Key",
    "Ready",
    "Report",
    "Run",
    "Stored",
    "pack",
    "unpack",
)

MAGIC: Final = b"\xc1tf1"
"""Begins every frame, so that stray bytes are never taken for a length."""
HEADER: Final = struct.Struct(">4sI")
MAX_FRAME: Final = 1 << 30
"""Bytes of the largest frame; payloads and results have limits of their own."""

Key = tuple[str, int]
"""Job id and delivery: a late answer is never taken for the next job's."""


class BadFrameError(Exception):
    """The other side sent what no frame looks like; the child is ended."""


class Init(msgspec.Struct, tag=True):
    """The first frame to a child."""

    backend: str
    config: Config
    codec: str | None
    lifespan: str | None
    worker_id: str


class Run(msgspec.Struct, tag=True):
    """Run this job. ``deadline`` is wall clock seconds, for the body's eyes only."""

    job: Leased
    location: str
    deadline: float | None


class Hook(msgspec.Struct, tag=True):
    """Run the task's ``failed`` hook."""

    job: Leased
    location: str
    error: ErrorInfo


class Stored(msgspec.Struct, tag=True):
    """The answer to a ``Dispatch``; ``error`` when it was refused."""

    replies: list[Enqueued]
    error: str = ""


class Ready(msgspec.Struct, tag=True):
    """The child is up."""


class Begun(msgspec.Struct, tag=True):
    """The child has the job: from here on its death is the job's."""

    key: Key


class Report(msgspec.Struct, tag=True):
    """Progress of the running body."""

    key: Key
    progress: Progress


class Dispatch(msgspec.Struct, tag=True):
    """The body dispatches jobs."""

    specs: list[JobSpec]


class Done(msgspec.Struct, tag=True):
    """The body has ended. ``is_spent``: what it raised may have harmed the child, which ends."""

    key: Key
    outcome: Completed | Failed | Retried | Snoozed | Discarded | Released | Stopped
    is_spent: bool = False


class HookDone(msgspec.Struct, tag=True):
    """The hook has ended, one way or another."""

    key: Key


Asked = Init | Run | Hook | Stored
"""Frames to a child."""
Answer = Ready | Begun | Report | Dispatch | Done | HookDone
"""Frames from a child."""

_encoder = msgspec.msgpack.Encoder()


def pack(frame: Asked | Answer) -> bytes:
    """A frame as bytes, with its length in front."""
    body = _encoder.encode(frame)
    return HEADER.pack(MAGIC, len(body)) + body


def unpack(buffer: bytearray) -> bytes | None:
    """Take one frame's body off the front of a buffer; ``None`` when it is not all there.

    Raises:
        BadFrameError: It is no frame, or says that it is larger than any may be.
    """
    if not MAGIC.startswith(buffer[: len(MAGIC)]):
        raise BadFrameError(f"stray bytes: {bytes(buffer[:16])!r}")
    if len(buffer) < HEADER.size:
        return None
    _, size = HEADER.unpack_from(buffer)
    if size > MAX_FRAME:
        raise BadFrameError(f"a frame of {size} bytes")
    end = HEADER.size + size
    if len(buffer) < end:
        return None
    body = bytes(buffer[HEADER.size : end])
    del buffer[:end]
    return body
