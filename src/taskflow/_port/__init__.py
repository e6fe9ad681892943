"""The only caller of a driver: deadlines, error translation, events, repeats, natural batching."""

from taskflow._port.batching import Batcher
from taskflow._port.finals import Finals
from taskflow._port.port import Port

__all__ = ("Batcher", "Finals", "Port")
