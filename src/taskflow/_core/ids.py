"""Identifiers: UUIDv7 text (RFC 9562, section 5.7), or what the caller gives."""

from __future__ import annotations

from typing import Final

__all__ = ("MAX_ID", "uuid7")

MAX_ID: Final = 128
"""The longest id in characters."""


def uuid7(milliseconds: int, random: bytes) -> str:
    """A UUIDv7 from a Unix time in milliseconds and ten random bytes; later ones sort later."""
    number = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(random, "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
