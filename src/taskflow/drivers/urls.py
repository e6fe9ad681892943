"""What the URLs of servers have in common: how badly quoted passwords are found and kept secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from taskflow.config import redact

__all__ = ("check_files", "check_quoting")

if TYPE_CHECKING:
    from collections.abc import Mapping

_STRAY: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_QUOTE: Final = "write %25 for %, %40 for @, %2F for /, %3F for ?, %23 for #, %26 for &"


def check_files(options: Mapping[str, str], *names: str) -> None:
    """See that the files are there that these options name.

    Raises:
        ValueError: One is not; names option and file.
    """
    for name in names:
        if name in options and not Path(options[name]).exists():
            raise ValueError(f"{name}: there is no {options[name]!r}")


def check_quoting(url: str) -> None:
    """See that a URL means the same to every reader.

    Raises:
        ValueError: A character in it must be quoted; the text names no part of the URL.
    """
    shown = redact(url)
    try:
        parts, seen = urlsplit(url), urlsplit(shown)
    except ValueError:
        raise ValueError(
            f"a bracket is not closed, or a character needs quoting: {_QUOTE}"
        ) from None
    if "@" not in url and seen.netloc.endswith(":***"):
        raise ValueError("neither a port nor a host follows the colon: user:password@host:port")
    if _STRAY.search(url):
        raise ValueError(f"a % is not followed by two hexadecimal digits: {_QUOTE}")
    if parts.netloc.count("@") != seen.netloc.count("@") or parts.path != seen.path:
        raise ValueError(f"a character of user or password must be quoted: {_QUOTE}")
    if parts.fragment or any("=" not in piece for piece in parts.query.split("&") if piece):
        raise ValueError(f"what follows the first ? or # is not name=value&name=value: {_QUOTE}")
    try:
        text = unquote(url, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"it is not UTF-8 where it is quoted: {_QUOTE}") from None
    if not text.isprintable():
        raise ValueError("it has control characters")
