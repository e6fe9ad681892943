"""``Config``: every option declared once; environment, flags, files and docs follow from that.

Precedence: flag over keyword over environment over pyproject.toml over default.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec

from taskflow._core.retry import Backoff
from taskflow._settings import PREFIX, Option, Setting, redact
from taskflow.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ("Config", "Option", "Setting", "configure", "redact", "settings")

NOT_OPTIONS: Final = frozenset({"app"})
"""Settings of the command line, beside those of ``Config``."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, as a value. Every field has an option's name in the environment
    (``TASKFLOW_LEASE``), on the command line (``--lease``) and in pyproject.toml
    (``[tool.taskflow] lease``).

    Raises:
        ConfigError: A value cannot be used; names the option, the value and what is expected.
    """

    url: Annotated[
        str | None,
        Option(
            help="Where jobs are stored: memory://, sqlite:///file.db, redis://host/0, "
            "postgresql://user@host/db. Default: ./taskflow.db.",
            secret=True,
        ),
    ] = None
    driver: Annotated[
        Literal["memory", "sqlite", "redis", "postgres"] | None,
        Option(help="The kind of store, when there is no URL."),
    ] = None
    sqlite_queue_table: Annotated[str, Option(help="Name of the table of jobs.")] = "taskflow_jobs"
    sqlite_dead_letter_table: Annotated[str, Option(help="Name of the table of failed jobs.")] = (
        "taskflow_dead"
    )
    redis_url: Annotated[
        str | None, Option(help="The Redis store's URL, when there is no URL.", secret=True)
    ] = None
    redis_password: Annotated[
        str | None, Option(help="The password, where the URL has none.", secret=True)
    ] = None
    redis_db: Annotated[int, Option(help="The database, where the URL says none.", least=0)] = 0
    redis_max_connections: Annotated[
        int, Option(help="Connections that are opened at most, as they are needed.", least=1)
    ] = 10
    redis_namespace: Annotated[
        str, Option(help="Apps of one namespace share their jobs; the first part of every key.")
    ] = "taskflow"
    postgres_dsn: Annotated[
        str | None, Option(help="The PostgreSQL store's URL, when there is no URL.", secret=True)
    ] = None
    postgres_queue_table: Annotated[
        str, Option(help="Name of the table of jobs: table, or schema.table.")
    ] = "task_queue"
    postgres_dead_letter_table: Annotated[
        str, Option(help="Name of the table of failed jobs: table, or schema.table.")
    ] = "dead_letter_queue"
    postgres_min_pool_size: Annotated[
        int, Option(help="Connections that are kept when they are idle.", least=0)
    ] = 10
    postgres_max_pool_size: Annotated[
        int, Option(help="Connections that are opened at most, as they are needed.", least=1)
    ] = 10
    postgres_statement_cache_size: Annotated[
        int, Option(help="Prepared statements a connection; 0 behind a pooler.", least=0)
    ] = 100
    default_queue: Annotated[str, Option(help="The queue of tasks that name none.")] = "default"
    max_attempts: Annotated[
        int, Option(help="Runs of a job at most, the first included.", least=1)
    ] = 3
    retry_delay: Annotated[
        Backoff | float,
        Option(
            help="Delay between attempts: a number for a fixed one, else 5 s doubling up to 1 h.",
            unit="s",
            least=0,
        ),
    ] = Backoff()
    timeout: Annotated[
        float | None,
        Option(help="What one attempt may take; none for no limit.", unit="s", least=0.001),
    ] = None
    result_ttl: Annotated[
        float | None,
        Option(help="How long results are kept; none for ever, 0 not at all.", unit="s", least=0),
    ] = 86_400.0
    failed_ttl: Annotated[
        float | None,
        Option(help="How long failed jobs are kept; none for ever.", unit="s", least=0),
    ] = 2_592_000.0
    max_payload: Annotated[
        int, Option(help="The largest encoded payload.", unit="bytes", least=1)
    ] = 1 << 20
    max_result: Annotated[
        int, Option(help="The largest encoded result.", unit="bytes", least=1, worker=True)
    ] = 1 << 20
    call_timeout: Annotated[
        float, Option(help="Deadline of a call to the store.", unit="s", least=1)
    ] = 30.0
    lease: Annotated[
        float,
        Option(
            help="How long a worker owns a job without renewing; after a kill, jobs return within "
            "1.34 leases.",
            unit="s",
            least=2,
        ),
    ] = 60.0
    queues: Annotated[
        tuple[str, ...],
        Option(
            help="Queues to serve, the most important first. Default: the default queue, those "
            "that tasks name, then all others.",
            worker=True,
        ),
    ] = ()
    concurrency: Annotated[
        int, Option(help="Jobs running at one time over all lanes.", least=1, worker=True)
    ] = 10
    threads: Annotated[
        int | None,
        Option(help="Slots of the thread lane. Default: concurrency.", least=1, worker=True),
    ] = None
    process_slots: Annotated[
        int | None,
        Option(
            help="Slots of the process lane. Default: the number of cores.", least=1, worker=True
        ),
    ] = None
    processes: Annotated[
        int, Option(help="Worker processes under one supervisor.", least=1, worker=True)
    ] = 1
    backend: Annotated[
        Literal["asyncio", "trio"],
        Option(help="The event loop that a worker runs on.", worker=True),
    ] = "asyncio"
    grace: Annotated[
        float,
        Option(help="How long a shutdown waits for running jobs.", unit="s", least=0, worker=True),
    ] = 25.0
    cancel_grace: Annotated[
        float,
        Option(help="How long a cancelled body may take to end.", unit="s", least=0, worker=True),
    ] = 5.0
    max_stall: Annotated[
        float | None,
        Option(
            help="How long the event loop may stand still before leases are let go. Default: "
            "5 leases.",
            unit="s",
            least=0.1,
            worker=True,
        ),
    ] = None
    stall: Annotated[
        Literal["exit", "log"] | None,
        Option(
            help="What a stalled worker does beside: end its process with code 70, or only log. "
            "Default: exit when it was started by the command line, else log.",
            worker=True,
        ),
    ] = None
    max_crashes: Annotated[
        int,
        Option(help="Workers that may die under a job before it is failed.", least=0, worker=True),
    ] = 3
    process_max_jobs: Annotated[
        int,
        Option(
            help="Jobs after which a process child is replaced; 0 for never.", least=0, worker=True
        ),
    ] = 1000
    process_max_memory: Annotated[
        int | None,
        Option(
            help="Memory above which a process child is replaced after its job.",
            unit="bytes",
            least=1,
            worker=True,
        ),
    ] = None
    process_env: Annotated[tuple[str, ...] | None, Option(
        help="Environment variables that process children get. Default: all.",
        worker=True)] = None  # fmt: skip

    def __post_init__(self) -> None:
        for setting in settings():
            value = setting.read(getattr(self, setting.name), setting.name)
            msgspec.structs.force_setattr(self, setting.name, value)
        _check_store(_changed(self), {})

    def __repr__(self) -> str:
        changed = _changed(self).items()
        shown = (f"{name}={_BY_NAME[name].shown(value)!r}" for name, value in changed)
        return f"Config({', '.join(shown)})"

    def replace(self, **changes: Any) -> Self:
        """A copy with some options changed; validated like a new one."""
        unknown = set(changes) - set(self.__struct_fields__)
        for name in sorted(unknown):
            raise _unknown(name, name, changes[name])
        return msgspec.structs.replace(self, **changes)

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """The settings of environment and pyproject.toml, below ``overrides``."""
        return cls.resolve(keywords=overrides)

    @classmethod
    def resolve(
        cls, *, flags: Mapping[str, Any] | None = None, keywords: Mapping[str, Any] | None = None,
        given: Config | None = None,
    ) -> Self:  # fmt: skip
        """The settings of all sources; the first that says something wins.

        Args:
            flags: From a command line.
            keywords: From code.
            given: Stands in place of all sources below the flags.
        """
        layers = [_named(flags or {}, "flag")]
        if given is None:
            layers += [_named(keywords or {}, "keyword"), _named(_configured, "keyword")]
            layers += [_environment(), _pyproject()]
        else:
            layers.append(_named(_changed(given), "keyword"))
        chosen: dict[str, Any] = {}
        sources: dict[str, str] = {}
        stores = False
        for layer in layers:
            says_store = bool({"url", "driver", *STORE_URLS} & layer.keys())
            for name, (value, source) in layer.items():
                if name in chosen or (stores and name in {"url", "driver"}):
                    continue  # a URL above is not mixed with a driver below
                chosen[name], sources[name] = _BY_NAME[name].read(value, source), source
            stores = stores or says_store
        _check_store(chosen, sources)
        return cls(**chosen)


def _declared() -> tuple[Setting, ...]:
    hints = get_type_hints(Config, include_extras=True)
    found = []
    for field in msgspec.structs.fields(Config):
        type_, option = get_args(hints[field.name])[:2]
        found.append(Setting(name=field.name, type=type_, default=field.default, option=option))
    return tuple(found)


_DECLARED: Final = _declared()
_BY_NAME: Final = {setting.name: setting for setting in _DECLARED}
_configured: dict[str, Any] = {}


def settings() -> tuple[Setting, ...]:
    """Every option, in the order of its declaration."""
    return _DECLARED


def configure(**options: Any) -> None:
    """Set options for every app of this process, below the keywords of each app.

    Raises:
        ConfigError: A value cannot be used; nothing was set.
    """
    _named(options, "keyword")
    Config(**{**_configured, **options})
    _configured.update(options)


def _changed(config: Config) -> dict[str, Any]:
    """What is not as the defaults are."""
    values = msgspec.structs.asdict(config)
    return {name: value for name, value in values.items() if value != _BY_NAME[name].default}


def _named(given: Mapping[str, Any], source: str) -> dict[str, tuple[Any, str]]:
    for name in given:
        if name not in _BY_NAME:
            raise _unknown(name, name, given[name])
    return {
        name: (value, _BY_NAME[name].flag if source == "flag" else name)
        for name, value in given.items()
    }


def _environment() -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for variable, value in os.environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in NOT_OPTIONS:
            continue
        if name not in _BY_NAME:
            raise _unknown(variable, name, value, hint=lambda near: PREFIX + near.upper())
        if value != "":
            found[name] = (value, variable)
    return found


def _pyproject() -> dict[str, tuple[Any, str]]:
    table = project_table()
    for name in table:
        if name not in _BY_NAME and name not in NOT_OPTIONS:
            raise _unknown(f"pyproject.toml [tool.taskflow] {name}", name, table[name])
    return {
        name: (value, f"pyproject.toml [tool.taskflow] {name}")
        for name, value in table.items()
        if name not in NOT_OPTIONS
    }


def project_table() -> Mapping[str, Any]:
    """``[tool.taskflow]`` of the nearest pyproject.toml upward from the working directory."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigError(option=str(file), value=None, problem=str(exc)) from exc
        table = document.get("tool", {}).get("taskflow", {})
        if not isinstance(table, dict):
            raise ConfigError(option=f"{file} [tool.taskflow]", value=table, problem="no table")
        return table
    return {}


def _unknown(
    source: str, name: str, value: object, *, hint: Callable[[str], str] = str
) -> ConfigError:
    if name == "max_retries":
        problem = "use max_attempts, which counts the first run: max_retries + 1"
        return ConfigError(option=source, value=value, problem=problem)
    near = difflib.get_close_matches(name, _BY_NAME, n=1)
    mended = f"did you mean {hint(near[0])}?" if near else "remove it"
    return ConfigError(option=source, value=None, problem=f"there is no such option; {mended}")


SCHEMES: Final = {
    "memory": "memory", "sqlite": "sqlite", "postgresql": "postgres", "postgres": "postgres",
    "redis": "redis", "rediss": "redis", "unix": "redis", "redis+sentinel": "redis",
    "rediss+sentinel": "redis", "redis+cluster": "redis", "rediss+cluster": "redis",
}  # fmt: skip
"""URL schemes of this version and the driver that each picks."""


STORE_URLS: Final = {"postgres_dsn": "postgres", "redis_url": "redis"}
"""Settings that hold the URL of one kind of store, and the driver of each."""


def _check_store(said: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """See that what was said picks one store."""
    for name in ("url", *STORE_URLS):
        if said.get(name) is not None:
            _check_url(said[name], sources.get(name, name), STORE_URLS.get(name))
    url, driver = said.get("url"), said.get("driver")
    if url is not None and driver not in {None, SCHEMES[urlsplit(url).scheme]}:
        raise ConfigError(
            option=sources.get("driver", "driver"), value=driver,
            problem=f"{sources.get('url', 'url')} = {redact(url)!r} is another store: give one "
            "of the two",
        )  # fmt: skip
    stores = {name.partition("_")[0]: name for name in said if name not in {"url", "driver"}}
    names = [sources.get(name, name) for kind, name in stores.items() if kind in SCHEMES.values()]
    if url is None and driver is None and len(names) > 1:
        raise ConfigError(
            option=names[0], value=None,
            problem=f"{names[1]} is another store's: say which one by url (TASKFLOW_URL) or driver "
            "(TASKFLOW_DRIVER)",
        )  # fmt: skip


def _check_url(url: str, source: str, driver: str | None) -> None:
    try:
        scheme = urlsplit(url).scheme
    except ValueError:  # its text may show the password
        raise ConfigError(
            option=source, value=redact(url), problem="a bracket of the host is not closed, or one "
            "in the password is not written %5B or %5D",
        ) from None  # fmt: skip
    known = [name for name, kind in SCHEMES.items() if driver in {None, kind}]
    if scheme not in known:
        raise ConfigError(
            option=source, value=redact(url),
            problem=f"no driver for {scheme or 'no'} scheme; this version has "
            f"{', '.join(f'{name}://' for name in known)}",
        )  # fmt: skip
