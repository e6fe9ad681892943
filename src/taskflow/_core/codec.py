"""Bytes from payloads and results, and back: msgpack, typed, checked in both directions.

A payload is valid when what the worker will decode equals what was dispatched: a plain round trip
would let a UUID pass as text and a list as a tuple.
"""

from __future__ import annotations

import dataclasses
import math
import re
from functools import lru_cache
from typing import Any, Final

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
        path = difference(codec, payload, codec.decode(data, type(payload)))
    except Exception as exc:
        path, problem = _culprit(codec, payload, exc)
        raise PayloadError(kind=kind, path=path, problem=problem) from exc
    if path is not None:
        raise PayloadError(
            kind=kind, path=path,
            problem="the value does not survive encoding as its declared type: "
            "a worker would see something else",
        )  # fmt: skip
    return data


_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$")


def _culprit(codec: Any, payload: Any, exc: Exception) -> tuple[str, str]:
    """The field to blame for a failed round trip, and what is wrong with it."""
    if isinstance(exc, msgspec.ValidationError):
        place = _PLACE.search(str(exc))
        return (place[1], _PLACE.sub("", str(exc))) if place else ("", str(exc))
    for name in type(payload).__struct_fields__:
        try:
            codec.encode(getattr(payload, name))
        except Exception as inner:
            return name, _plain(inner)
    return "", _plain(exc)


def _plain(exc: Exception) -> str:
    if isinstance(exc, OverflowError) and "int" in str(exc):
        return "integers beyond 64 bit cannot be encoded; use str or Decimal"
    if isinstance(exc, UnicodeEncodeError):
        return "text with a lone surrogate cannot be encoded"
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    return str(exc)


def difference(codec: Any, sent: Any, seen: Any, path: str = "") -> str | None:
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
    pairs = _parts(codec, sent, seen)
    if pairs is None:
        return None if _same_bytes(codec, sent, seen) else path
    for name, one, other in pairs:
        inner = f"{path}.{name}" if path and name[0] != "[" else path + name
        found = difference(codec, one, other, inner)
        if found is not None:
            return found
    return None  # every part is the same: no equality of its own, or NaN somewhere inside


def _parts(codec: Any, sent: Any, seen: Any) -> list[tuple[str, Any, Any]] | None:
    """What two values of one type are made of, pairwise; ``None`` when that cannot be said."""
    names = _field_names(sent)
    if names is not None:
        return [(name, getattr(sent, name), getattr(seen, name)) for name in names]
    if not isinstance(sent, (dict, list, tuple, set, frozenset)) or len(sent) != len(seen):
        return None
    if isinstance(sent, dict):
        if sent.keys() == seen.keys():
            return [(f"[{key!r}]", value, seen[key]) for key, value in sent.items()]
        keys = _paired(codec, sent, seen)
        return [*keys, *((f"[{a!r}]", sent[a], seen[b]) for _, a, b in keys)]
    if isinstance(sent, (set, frozenset)):
        return _paired(codec, sent, seen)
    return [(f"[{i}]", a, b) for i, (a, b) in enumerate(zip(sent, seen, strict=True))]


def _field_names(value: Any) -> list[str] | None:
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    attributes = getattr(type(value), "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


def _paired(codec: Any, sent: Any, seen: Any) -> list[tuple[str, Any, Any]]:
    """Keys or elements, which have no order, by the order of their encodings."""
    pairs = zip(sorted(sent, key=codec.encode), sorted(seen, key=codec.encode), strict=True)
    return [(f"[{a!r}]", a, b) for a, b in pairs]


def _same_bytes(codec: Any, sent: Any, seen: Any) -> bool:
    try:
        return bool(codec.encode(sent) == codec.encode(seen))
    except Exception:
        return False
