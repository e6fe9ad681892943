"""Bytes from payloads and results, and back: msgpack, typed, checked in both directions.

A payload is valid when what the worker will decode equals what was dispatched: a plain round trip
would let a UUID pass as text and a list as a tuple.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from typing import Any

import msgspec

from taskflow.errors import PayloadError

__all__ = ("MsgpackCodec", "difference", "encode_checked")


@lru_cache(maxsize=4096)
def _decoder(type_: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type_)


class MsgpackCodec:
    """The default codec: msgspec's msgpack, strict."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, value: object) -> bytes:
        """Encode a payload or a result."""
        return self._encoder.encode(value)

    def decode(self, data: bytes, type: Any) -> Any:
        """Decode and validate against ``type``."""
        try:
            decoder = _decoder(type)
        except TypeError:  # an unhashable annotation: no cache for it
            decoder = msgspec.msgpack.Decoder(type)
        return decoder.decode(data)


def encode_checked(codec: Any, kind: str, payload: Any) -> bytes:
    """Encode a payload and prove that a worker will decode what was meant.

    Raises:
        PayloadError: A field cannot be encoded, or would come back as something else. The
            message names the first such field. Nothing was stored.
    """
    try:
        data: bytes = codec.encode(payload)
        decoded = codec.decode(data, type(payload))
    except Exception as exc:
        path, problem = _culprit(codec, payload, exc)
        raise PayloadError(kind=kind, path=path, problem=problem) from exc
    path_found = difference(payload, decoded)
    if path_found is not None:
        raise PayloadError(
            kind=kind, path=path_found,
            problem="the value does not survive encoding as its declared type: "
            "a worker would see something else",
        )  # fmt: skip
    return data


def _culprit(codec: Any, payload: Any, exc: Exception) -> tuple[str, str]:
    """The field to blame for a failed round trip, and what is wrong with it."""
    if isinstance(exc, msgspec.ValidationError):
        text, _, path = str(exc).partition(" - at `$.")
        return path.removesuffix("`"), text
    for field in msgspec.structs.fields(type(payload)):
        try:
            codec.encode(getattr(payload, field.name))
        except Exception as inner:
            return field.name, _plain(inner)
    return "", _plain(exc)


def _plain(exc: Exception) -> str:
    if isinstance(exc, OverflowError):
        return "integers beyond 64 bit cannot be encoded; use str or Decimal"
    if isinstance(exc, UnicodeEncodeError):
        return "text with a lone surrogate cannot be encoded"
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    return str(exc)


def difference(sent: Any, seen: Any, path: str = "") -> str | None:
    """The path of the first place where two values differ, or ``None``.

    NaN equals NaN; values of a type without equality are compared by their encoding.
    """
    try:
        if sent == seen:
            return None
    except Exception:  # noqa: S110 - a user's __eq__; the walk below decides
        pass
    if type(sent) is not type(seen):
        return path
    if isinstance(sent, float):
        return None if math.isnan(sent) and math.isnan(seen) else path
    pairs = _children(sent, seen)
    if pairs is None:
        return None if _same_bytes(sent, seen) else path
    for name, one, other in pairs:
        found = difference(one, other, f"{path}.{name}" if path and name[0] != "[" else path + name)
        if found is not None:
            return found
    return None  # every part is the same: no equality of its own, or NaN somewhere inside


def _children(sent: Any, seen: Any) -> list[tuple[str, Any, Any]] | None:
    if isinstance(sent, msgspec.Struct):
        names = sent.__struct_fields__
        return [(name, getattr(sent, name), getattr(seen, name)) for name in names]
    if dataclasses.is_dataclass(sent):
        fields = [field.name for field in dataclasses.fields(sent)]
        return [(name, getattr(sent, name), getattr(seen, name)) for name in fields]
    if isinstance(sent, dict) and sent.keys() == seen.keys():
        return [(f"[{key!r}]", value, seen[key]) for key, value in sent.items()]
    if isinstance(sent, (list, tuple)) and len(sent) == len(seen):
        return [(f"[{i}]", a, b) for i, (a, b) in enumerate(zip(sent, seen, strict=True))]
    return None


def _same_bytes(sent: Any, seen: Any) -> bool:
    try:
        return msgspec.msgpack.encode(sent) == msgspec.msgpack.encode(seen)
    except Exception:
        return False
