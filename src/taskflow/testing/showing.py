"""Values in as few words as a reader needs: fields that differ from their default."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

__all__ = ("show",)


def show(value: Any) -> str:
    """Like ``repr``, without defaults; enums by their word; long bytes by their length."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, msgspec.Struct):
        return _struct(value)
    if isinstance(value, bytes) and len(value) > 16:
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{show(k)}: {show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(show, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return repr(value)


def _struct(value: msgspec.Struct) -> str:
    parts = []
    for one in msgspec.structs.fields(value):
        held = getattr(value, one.name)
        default = one.default
        if one.default_factory is not msgspec.NODEFAULT:
            default = one.default_factory()
        if default is msgspec.NODEFAULT or held != default:
            parts.append(f"{one.name}={show(held)}")
    return f"{type(value).__name__}({', '.join(parts)})"
