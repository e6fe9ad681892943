"""One setting: what is said about it, and how text and values are read and shown.

``Config`` declares the settings; environment, flags, files and the reference page follow from them.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from taskflow._core.retry import Backoff, seconds
from taskflow.errors import ConfigError

__all__ = ("PREFIX", "Option", "Setting", "redact")

PREFIX: Final = "TASKFLOW_"


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """What the annotation of an option says about it.

    Attributes:
        help: One sentence.
        unit: What a number counts.
        least: The smallest value.
        worker: It matters to workers only.
        secret: Its value is never shown.
    """

    help: str
    unit: str = ""
    least: float | None = None
    worker: bool = False
    secret: bool = False


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One option, as the command line and the reference page need it."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it takes; empty when it takes others."""
        return tuple(
            word
            for part in _parts(self.type)
            if get_origin(part) is Literal
            for word in get_args(part)
        )

    @property
    def is_optional(self) -> bool:
        """``None`` (the word ``none`` in text) is a value."""
        return type(None) in _parts(self.type)

    def read(self, value: Any, source: str) -> Any:
        """Turn a value, or text of the environment or a flag, into what the option holds.

        Raises:
            ConfigError: It cannot; ``source`` says where the value comes from.
        """
        try:
            return self._read(value)
        except (ValueError, TypeError) as exc:
            problem = f"expected {exc}"
            raise ConfigError(option=source, value=self.shown(value), problem=problem) from exc

    def shown(self, value: Any) -> Any:
        """A value for people to see: without what is secret in it."""
        if not self.option.secret:
            return value
        return redact(value) if isinstance(value, str) else f"<{type(value).__name__}>"

    def _read(self, value: Any) -> Any:
        if value is None or (
            self.is_optional and isinstance(value, str) and value.lower() == "none"
        ):
            if self.is_optional:
                return None
            raise ValueError("a value, not none")
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"one of {', '.join(self.choices)}")
            return value
        parts = _parts(self.type)
        if Backoff in parts:
            return value if isinstance(value, Backoff) else Backoff.fixed(self._number(value))
        if float in parts:
            return self._number(value)
        if int in parts:
            return self._whole(value)
        if str in parts:
            return _text(value)
        return _words(value)

    def _number(self, value: Any) -> float:
        least = self.option.least or 0.0
        wanted = f"a number of at least {least:g} {'seconds' if self.option.unit == 's' else ''}"
        try:
            number = float(value) if isinstance(value, str) else value
            return seconds(number, what=self.name, least=least)
        except (ValueError, TypeError):
            raise ValueError(wanted.strip()) from None

    def _whole(self, value: Any) -> int:
        least = int(self.option.least or 0)
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ValueError(f"a whole number of at least {least}")
        return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("printable text")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise ValueError("names separated by commas")
    return tuple(_text(word) for word in value)


def _parts(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in {types.UnionType, typing.Union}:
        return tuple(get_args(annotation))
    return (annotation,)


_PASSWORD: Final = re.compile(r"^((?:[^:/?#]+://)?[^:@/?#]*):(?!//).*@", re.DOTALL)
_SECRET_PARAMETER: Final = re.compile(
    r"([?&][^=&]*(?:password|secret|token)[^=&]*=).*", re.I | re.DOTALL
)
"""With all that follows: an & in a password looks like the end of it."""
_NO_PORT: Final = re.compile(r"^([^:/?#]+://[^:@/?#\[\]]*):(?!\d{0,5}(?:[,/?#]|$))[^@]*$")
"""A colon, and neither a port nor an @ behind it: a password whose host was forgotten."""


def redact(url: str) -> str:
    """A URL for people to see: passwords are three stars, however badly they are quoted."""
    hidden = _NO_PORT.sub(r"\1:***", _PASSWORD.sub(r"\1:***@", url))
    return _SECRET_PARAMETER.sub(r"\1***", hidden)
