"""One module a store: atomic operations over jobs; no policy, no logging, no retries.

To add one: the module, its scheme in ``config.SCHEMES``, a branch here, a line in the tests'
list of drivers, a page in the docs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from taskflow.config import SCHEMES, Config, redact
from taskflow.errors import ConfigError

if TYPE_CHECKING:
    from taskflow.abc import Clock, Driver

__all__ = ("driver_for",)

DEFAULT_FILE = "taskflow.db"
"""Where jobs are stored when nothing is said: one file in the working directory."""


def driver_for(config: Config, *, clock: Clock | None = None) -> Driver:
    """The driver that the settings name, not yet open. Modules load at first use.

    Raises:
        ConfigError: The URL cannot be used.
    """
    url = _url_of(config)
    parts = urlsplit(url)
    if SCHEMES.get(parts.scheme) == "postgres":
        return _postgres(url, config, clock)
    if SCHEMES[parts.scheme] == "redis":
        return _redis(url, config, clock)
    if SCHEMES[parts.scheme] == "memory":
        from taskflow.drivers.memory import MemoryDriver

        return MemoryDriver(name=parts.netloc or None, clock=clock)
    from taskflow.drivers.sqlite import SqliteDriver

    if parts.netloc or not parts.path.strip("/"):
        raise ConfigError(
            option="url", value=redact(url),
            problem="expected sqlite:///relative.db or sqlite:////absolute.db",
        )  # fmt: skip
    return SqliteDriver(
        Path(unquote(parts.path[1:])), clock=clock, queue_table=config.sqlite_queue_table,
        dead_letter_table=config.sqlite_dead_letter_table,
    )  # fmt: skip


def _url_of(config: Config) -> str:
    if config.url is not None:
        return config.url
    if config.driver == "memory":
        return "memory://"
    if config.driver == "postgres" or (config.driver is None and config.postgres_dsn is not None):
        return config.postgres_dsn or "postgresql://"
    if config.driver == "redis" or (config.driver is None and config.redis_url is not None):
        return config.redis_url or "redis://localhost:6379"
    return f"sqlite:///{DEFAULT_FILE}"


def _postgres(url: str, config: Config, clock: Clock | None) -> Driver:
    try:
        from taskflow.drivers.postgres import PostgresDriver
    except ModuleNotFoundError as exc:
        raise _no_client("postgres", url, exc) from exc
    return PostgresDriver(
        url, queue_table=config.postgres_queue_table,
        dead_letter_table=config.postgres_dead_letter_table,
        min_pool_size=config.postgres_min_pool_size, max_pool_size=config.postgres_max_pool_size,
        statement_cache_size=config.postgres_statement_cache_size,
        call_timeout=config.call_timeout,
        clock_offset=lambda: float(getattr(clock, "offset", 0.0)),
    )  # fmt: skip


def _redis(url: str, config: Config, clock: Clock | None) -> Driver:
    try:
        from taskflow.drivers.redis import RedisDriver
    except ModuleNotFoundError as exc:
        raise _no_client("redis", url, exc) from exc
    return RedisDriver(
        url, password=config.redis_password, db=config.redis_db,
        max_connections=config.redis_max_connections, namespace=config.redis_namespace,
        call_timeout=config.call_timeout, clock=clock,
    )  # fmt: skip


def _no_client(extra: str, url: str, missing: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        option="url", value=redact(url),
        problem=f"{missing.name} is not installed: pip install taskflow-anyio[{extra}]",
    )  # fmt: skip
