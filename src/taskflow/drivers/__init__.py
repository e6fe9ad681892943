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
    url = config.url
    if url is None:
        url = "memory://" if config.driver == "memory" else f"sqlite:///{DEFAULT_FILE}"
    parts = urlsplit(url)
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
