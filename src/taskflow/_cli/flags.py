"""Flags from the declaration of ``Config``: one for each option, none besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from taskflow._core.retry import Backoff
from taskflow.config import SCHEMES, Setting, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

F = TypeVar("F", bound="Callable[..., Any]")

__all__ = ("given_flags", "store_flags", "worker_flags")


def worker_flags(command: F) -> F:
    """Add every option of ``Config`` to a command."""
    return _with(command, settings())


def store_flags(command: F) -> F:
    """Add the options that say where jobs are stored."""
    names = ("url", "driver", *SCHEMES.values())
    said = [one for one in settings() if one.name.startswith(names)]
    return _with(command, said)


def _with(command: F, chosen: Sequence[Setting]) -> F:
    for setting in reversed(chosen):
        command = click.option(
            setting.flag, setting.name, default=None, metavar=_metavar(setting),
            help=f"{setting.option.help} {_default(setting)}".strip(),
        )(command)  # fmt: skip
    return command


def given_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that stand on the command line."""
    return {name: value for name, value in values.items() if value is not None}


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "|".join(setting.choices)
    return {"s": "SECONDS", "bytes": "BYTES"}.get(setting.option.unit, "TEXT")


def _default(setting: Setting) -> str:
    value = setting.default
    if value is None or value == () or isinstance(value, Backoff):
        return ""
    return f"[default: {value:g}]" if isinstance(value, float) else f"[default: {value}]"
