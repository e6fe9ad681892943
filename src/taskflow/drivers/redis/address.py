"""URLs: one server, a unix socket, Sentinels, a cluster."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from taskflow.config import redact
from taskflow.drivers.urls import check_files, check_quoting
from taskflow.errors import ConfigError

__all__ = ("Address", "read_url")

_TLS: Final = frozenset(
    {"ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile",
     "ssl_check_hostname"}
)  # fmt: skip
_CERTIFICATES: Final = ("none", "optional", "required")
_QUERY: Final = frozenset({"db", "password", "sentinel_username", "sentinel_password", *_TLS})
_HOST: Final = re.compile(r"^(\[[^\]]+\]|[^:\[\]]*)(?::(\d{1,5}))?$")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a store is.

    Attributes:
        kind: ``single``, ``unix``, ``sentinel`` or ``cluster``.
        hosts: Who is asked, in this order: servers, Sentinels or nodes.
        path: The unix socket.
        master: The name that Sentinels know the store by.
        login: ``username`` and ``password``; ``sentinel_login`` is the Sentinels' own.
        tls: Options of the client, or ``None`` for none.
        shown: The URL without any secret.
    """

    kind: str
    shown: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    db: int = 0
    login: dict[str, str] = {}
    sentinel_login: dict[str, str] = {}
    tls: dict[str, Any] | None = None


def read_url(url: str, *, password: str | None = None, db: int = 0) -> Address:
    """Read a store's URL.

    Args:
        url: ``redis://user:password@host:6379/0``, ``rediss://``, ``unix:///path?db=0``,
            ``redis+sentinel://host,host/master/0`` or ``redis+cluster://host,host``.
        password: Where the URL has none.
        db: Where the URL says none.

    Raises:
        ConfigError: It cannot be used.
    """
    shown = redact(url)
    try:
        check_quoting(url)
        return _read(url, shown, password, db)
    except ValueError as exc:
        raise ConfigError(option="url", value=shown, problem=str(exc)) from None


def _read(url: str, shown: str, password: str | None, db: int) -> Address:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(query.keys() - _QUERY)
    if unknown:
        raise ValueError(f"there is no parameter {unknown[0]!r}")
    scheme, _, flavour = parts.scheme.partition("+")
    kind = "unix" if scheme == "unix" else flavour or "single"
    user, _, place = parts.netloc.rpartition("@")
    said = [unquote(word) for word in parts.path.strip("/").split("/") if word]
    master = said.pop(0) if kind == "sentinel" and said else ""
    if kind == "sentinel" and not master:
        raise ValueError("expected redis+sentinel://host,host/name-of-the-master/0")
    if kind != "unix" and "db" not in query and said:
        query["db"] = said.pop(0)
    if kind != "unix" and said:
        raise ValueError("expected a database's number as its path, such as /0")
    number = _number(query.get("db", str(db)))
    if kind == "cluster" and number:
        raise ValueError("a cluster has no database but 0")
    return Address(
        kind=kind, shown=shown, master=master, db=number,
        hosts=() if kind == "unix" else _hosts(place, 26379 if kind == "sentinel" else 6379),
        path=unquote(parts.path) if kind == "unix" else "",
        login=_login(user, query.get("password"), password),
        sentinel_login={name.removeprefix("sentinel_"): query[name] for name in query
                        if name.startswith("sentinel_")},
        tls=_tls(query) if scheme == "rediss" else None,
    )  # fmt: skip


def _hosts(place: str, port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for one in place.split(","):
        found = _HOST.match(one)
        if found is None or int(found[2] or port) > 65535:
            raise ValueError("expected host or host:port, with a port of at most 65535")
        hosts.append((found[1].strip("[]") or "localhost", int(found[2] or port)))
    return tuple(hosts)


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError("expected a database's number, such as /0")
    return int(text)


def _login(user: str, *passwords: str | None) -> dict[str, str]:
    name, _, own = user.partition(":")
    found = {"username": unquote(name), "password": unquote(own)}
    for password in passwords:
        found["password"] = found["password"] or password or ""
    return {key: value for key, value in found.items() if value}


def _tls(query: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {name: query[name] for name in query if name in _TLS}
    if options.get("ssl_cert_reqs", "none") not in _CERTIFICATES:
        raise ValueError(f"ssl_cert_reqs is none of {', '.join(_CERTIFICATES)}")
    check_files(query, "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() not in {
            "0", "false", "no",
        }  # fmt: skip
    return options
