"""What a transaction changed that somebody may be waiting for."""

from __future__ import annotations

import msgspec

from taskflow._core.records import Wait, Wake

__all__ = ("News",)

MOST_BYTES = 32_768
"""A longer message is cut down to "look again": a datagram has its limits."""


class News(msgspec.Struct, omit_defaults=True, array_like=True):
    """Hints, to be told after the commit.

    Attributes:
        work: Queues and lanes that have new jobs, perhaps due later: who sleeps until the next
            one is due has to ask again.
        finals: Ids of jobs that ended.
        workers: Ids of workers of whose jobs a cancellation was asked.
        is_cut: There was more than could be said; everybody is to look again.
    """

    work: set[tuple[str, str]] = msgspec.field(default_factory=set)
    finals: set[str] = msgspec.field(default_factory=set)
    workers: set[str] = msgspec.field(default_factory=set)
    is_cut: bool = False

    def __bool__(self) -> bool:
        return bool(self.work or self.finals or self.workers or self.is_cut)

    def add(self, other: News) -> None:
        """Take in what another operation, or another process, has to say."""
        self.work |= other.work
        self.finals |= other.finals
        self.workers |= other.workers
        self.is_cut |= other.is_cut

    def answer(self, request: Wait) -> Wake | None:
        """What it means to one who waits; ``None`` if nothing."""
        work = any(
            lane in request.lanes and (request.others or queue in request.queues)
            for queue, lane in self.work
        )
        finals = request.ids & self.finals
        cancels = request.worker_id in self.workers
        if work or finals or cancels:
            return Wake(work=work, finals=finals, cancels=cancels)
        return None

    def encode(self) -> bytes:
        """As one datagram."""
        data = msgspec.msgpack.encode(self)
        return data if len(data) <= MOST_BYTES else msgspec.msgpack.encode(News(is_cut=True))

    @staticmethod
    def decode(data: bytes) -> News:
        """Read a datagram; what is not one of ours counts as "look again"."""
        try:
            return _decoder.decode(data)
        except msgspec.MsgspecError:
            return News(is_cut=True)


_decoder = msgspec.msgpack.Decoder(News)
