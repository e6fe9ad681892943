"""Identifiers: UUIDv7 text (RFC 9562, section 5.7), or what the caller gives."""

from __future__ import annotations

from typing import Final

__all__ = ("MAX_ID", "uuid7")

MAX_ID: Final = 128
"""The longest id in characters."""


def uuid7(milliseconds: int, random: bytes) -> str:
    """A UUIDv7 from a Unix time in milliseconds and ten random bytes; later ones sort later."""
    time, rest = f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}", random.hex()
    variant = "89ab"[random[2] >> 4 & 3]
    return f"{time[:8]}-{time[8:]}-7{rest[1:4]}-{variant}{rest[5:8]}-{rest[8:]}"
