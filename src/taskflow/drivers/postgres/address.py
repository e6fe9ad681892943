"""URLs: ``postgresql://user:password@host:5432/database?sslmode=require``."""

from __future__ import annotations

import difflib
import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from taskflow.config import redact
from taskflow.drivers.urls import check_files, check_quoting
from taskflow.errors import ConfigError

__all__ = ("check_url",)

_WORDS: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        "any",
        "primary",
        "standby",
        "read-write",
        "read-only",
        "prefer-standby",
    ),
}
_CLIENT: Final = frozenset(
    {
        "host", "port", "user", "password", "dbname", "database", "passfile", "service",
        "krbsrvname", "gsslib", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword",
        "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version", *_WORDS,
    }
)  # fmt: skip
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_SERVER: Final = frozenset({"application_name", "options", "role", "search_path"})
"""Settings of the session; ``options=-c name=value`` gives any other."""
_HOST: Final = re.compile(r"(?:\[[^\]]+\]|[^:\[\]]*)(?::(\d*))?")


def check_url(url: str) -> str:
    """See that a URL is one that the client reads as it was meant.

    Returns:
        The URL without any secret.

    Raises:
        ConfigError: It cannot be used; says why without the password.
    """
    shown = redact(url)
    try:
        check_quoting(url)
        _check_hosts(urlsplit(url).netloc.rpartition("@")[2])
        _check_options(url, shown)
    except ValueError as exc:
        raise ConfigError(option="url", value=shown, problem=str(exc)) from None
    return shown


def _check_hosts(place: str) -> None:
    for one in place.split(","):
        found = _HOST.fullmatch(unquote(one) if one.startswith("%2") else one)
        if found is None or (found[1] and not 0 < int(found[1]) < 65536):
            raise ValueError("the port is no number from 1 to 65535")


def _check_options(url: str, shown: str) -> None:
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    known = _CLIENT | _SERVER
    for name in sorted(query.keys() - known):
        if name not in dict(parse_qsl(urlsplit(shown).query, keep_blank_values=True)):
            raise ValueError("an option behind the password is unknown, or write %26 for & in it")
        near = difflib.get_close_matches(name, known, n=1)
        mended = f"did you mean {near[0]}?" if near else "settings of the server: options=-c ..."
        raise ValueError(f"there is no option {name!r}; {mended}")
    for name, words in _WORDS.items():
        if query.get(name, words[0]) not in words:
            raise ValueError(f"{name} is {query[name]!r}: expected one of {', '.join(words)}")
    check_files({name: file for name, file in query.items() if file != "system"}, *_FILES)
    if not re.fullmatch(r"(\d{1,5}(,\d{1,5})*)?", query.get("port", "")):
        raise ValueError(f"the port {query['port']!r} is no number from 1 to 65535")
