"""Servers that are not there, not ours or not fit: one line that names value and remedy, an exit
code, no password, and nothing stored.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taskflow.config import Config
from taskflow.drivers import driver_for
from taskflow.drivers.postgres import health as postgres_health
from taskflow.drivers.redis import health as redis_health
from taskflow.errors import ConfigError
from tests.drivers.redis_server import RedisServer, redis_running
from tests.drivers.servers import PostgresServer, free_port, missing, program

from .commands import JOBS, side_by_side, taskflow
from .test_bad_input import contents

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow("starts Python, and waits for no answer")]

FAILURE, USAGE = 1, 2
SECRETS = ("kwak", "zork")
"""Both halves of every password."""
HBA = """\
local all all trust
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""
ROLES = """
CREATE ROLE mine LOGIN PASSWORD 'kwakzork';
CREATE ROLE odd LOGIN SUPERUSER PASSWORD 'kwak:/?#[]@%zork &ü';
CREATE ROLE poor LOGIN PASSWORD 'kwakzork';
CREATE ROLE reader LOGIN PASSWORD 'kwakzork';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
"""
GRANTS = """
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader, mine;
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO mine;
"""
USERS = (
    "mine on >kwakzork ~* &* +@all",
    "noeval on >kwakzork ~* &* +@all -evalsha",
    "nokeys on >kwakzork ~other* &* +@all",
    "noinfo on >kwakzork ~* &* +@all -info",
    "nowrite on >kwakzork ~* &* +@all -hset",
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Servers:
    """``places`` fill the URLs of the cases."""

    postgres: PostgresServer
    places: Mapping[str, str]

    def sql(self, text: str, database: str = "postgres") -> str:
        command = program("psql")
        assert command is not None
        url = self.postgres.url.removesuffix("postgres") + database
        return subprocess.run(
            [command, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, "-c", text],
            check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip

    def database(self) -> str:
        name = f"bad{os.getpid()}_{next(_numbers)}"
        self.postgres.create_database(name)
        return name


def strict_postgres() -> PostgresServer:
    """Asks everybody but its superuser for a password."""
    server = PostgresServer(password_encryption="scram-sha-256")
    hba = server.folder / "hba.conf"
    hba.write_text(HBA)
    server.settings["hba_file"] = str(hba)
    return server


def redis_cli(server: RedisServer, *words: str) -> None:
    command = program("redis-cli")
    assert command is not None
    done = subprocess.run(
        [command, "-e", "-p", str(server.port), *words], check=True, capture_output=True, timeout=60
    )
    assert done.stdout.strip() == b"OK"


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    if not PostgresServer.is_there():
        missing("PostgreSQL")
    if RedisServer.path() is None:
        missing("Redis")
    with ExitStack() as stack:
        postgres = strict_postgres()
        stack.callback(postgres.remove)
        postgres.create()
        plain = stack.enter_context(redis_running())
        locked = stack.enter_context(redis_running(requirepass="kwakzork"))
        evicting = stack.enter_context(redis_running(maxmemory_policy="allkeys-lru"))
        for user in USERS:
            redis_cli(plain, "ACL", "SETUSER", *user.split())
        found = Servers(
            postgres,
            {
                "postgres": f"127.0.0.1:{postgres.port}", "redis": f"127.0.0.1:{plain.port}",
                "locked": f"127.0.0.1:{locked.port}", "evicting": f"127.0.0.1:{evicting.port}",
                "nobody": f"127.0.0.1:{free_port()}",
            },
        )  # fmt: skip
        found.sql(ROLES)
        yield found


@dataclass(frozen=True)
class Case:
    """``url`` for both commands; ``migrate`` says what that one has to say instead, or that it has
    nothing to say against it.
    """

    url: str
    code: int = FAILURE
    says: tuple[str, ...] = ()
    migrate: tuple[str, ...] | None = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    setup: str = ""
    """``tables``: migrated before; or SQL after that."""


QUOTE = ("must be quoted", "%2F for /")
OPTION = "postgresql://mine@nowhere/db?"

URLS = {
    "unknown scheme": Case("mongodb://me:kwakzork@h/db", USAGE, ("mongodb", "postgresql://")),
    "bad port": Case("postgresql://me:kwakzork@h:54x2/db", USAGE, ("h:54x2", "1 to 65535")),
    "port too large": Case("postgresql://h:99999/db", USAGE, ("99999", "1 to 65535")),
    "no host behind the password": Case(
        "postgresql://me:kwakzork", USAGE, ("me:***", "nor a host")
    ),
    "nor a port": Case("redis://me:kwakzork", USAGE, ("me:***", "nor a host")),
    "a slash": Case("postgresql://me:kwak/zork@h/db", USAGE, QUOTE),
    "an at": Case("postgresql://me:kwak@zork@h/db", USAGE, QUOTE),
    "a hash": Case("redis://me:kwak#zork@h/0", USAGE, QUOTE),
    "a question mark": Case("redis://me:kwak?zork@h/0", USAGE, QUOTE),
    "a percent": Case("postgresql://me:kwak%zork@h/db", USAGE, ("%25",)),
    "a percent, redis": Case("redis://me:kwak%zork@h/0", USAGE, ("%25",)),
    "no utf-8": Case("redis://me:kwak%FFzork@h/0", USAGE, ("UTF-8",)),
    "a bracket": Case("postgresql://me:kwak[zork@h/db", USAGE, ("bracket",)),
    "an ampersand": Case("postgresql://h/db?password=kwak&zork", USAGE, ("%26",)),
    "an ampersand, redis": Case("unix:///run/r?password=kwak&zork", USAGE, ("%26",)),
    "unknown option": Case(OPTION + "ssl_mode=require", USAGE, ("ssl_mode", "mean sslmode")),
    "option of another client": Case(OPTION + "connect_timeout=3", USAGE, ("connect_timeout",)),
    "unknown behind the password": Case(OPTION + "password=kwak&zork=1", USAGE, ("%26",)),
    "unknown sslmode": Case(OPTION + "sslmode=on", USAGE, ("'on'", "verify-full")),
    "no such file": Case(OPTION + "sslrootcert=no.pem", USAGE, ("sslrootcert", "no.pem")),
    "unknown parameter, redis": Case("redis://h/0?dbb=1", USAGE, ("'dbb'",)),
    "unknown certificates, redis": Case("rediss://h?ssl_cert_reqs=on", USAGE, ("required",)),
    "no such file, redis": Case("rediss://h?ssl_ca_certs=no.pem", USAGE, ("no.pem",)),
    "no number, redis": Case("redis://h/db", USAGE, ("/db", "such as /0")),
    "no master, redis": Case("redis+sentinel://h", USAGE, ("name-of-the-master",)),
}

SERVERS = {
    "no host": Case(
        "postgresql:///db", says=("postgresql:///db", "there is no socket"), env={"PGHOST": "/nowhere"}
    ),
    "nobody": Case("postgresql://me:kwakzork@{nobody}/db", says=("{nobody}", "start the server")),
    "nobody, redis": Case("redis://me:kwakzork@{nobody}/0", says=("{nobody}", "start the server")),
    "no such host": Case("postgresql://me:kwakzork@no.invalid/db", says=("no.invalid",)),
    "no such host, redis": Case("redis://me:kwakzork@no.invalid/0", says=("no.invalid",)),
    "wrong password": Case(
        "postgresql://mine:zorkkwak@{postgres}/postgres",
        says=("mine:***@{postgres}", "password authentication failed", "mend user and password"),
    ),
    "no password": Case("postgresql://mine@{postgres}/postgres", says=("password", "mend user")),
    "wrong password, redis": Case("redis://:zorkkwak@{locked}/0", says=("password are wrong",)),
    "wrong password, user": Case("redis://mine:zorkkwak@{redis}/0", says=("password are wrong",)),
    "no password, redis": Case("redis://{locked}/0", says=("password is needed", "redis_password")),
    "no such database": Case(
        "postgresql://postgres:kwakzork@{postgres}/nowhere", says=("nowhere", "createdb")
    ),
    "no such database, redis": Case("redis://{redis}/99", says=("{redis}/99", "no such database")),
    "not postgres": Case("postgresql://me:kwakzork@{redis}/db", says=("{redis}", "a PostgreSQL")),
    "not redis": Case("redis://me:kwakzork@{postgres}/0", says=("{postgres}", "a Redis")),
    "no tls": Case(
        "postgresql://mine:kwakzork@{postgres}/postgres?sslmode=require",
        says=("sslmode=require", "has no TLS"),
    ),
    "no tls, redis": Case("rediss://me:kwakzork@{redis}/0", says=("rediss://", "speak TLS")),
    "no client": Case(
        "postgresql://mine:kwakzork@{postgres}/postgres", USAGE,
        ("asyncpg is not installed", "pip install", "[postgres]"), env={"PYTHONPATH": "."},
        files={"asyncpg.py": "raise ModuleNotFoundError('hidden', name='asyncpg')"},
    ),
    "no client, redis": Case(
        "redis://mine:kwakzork@{redis}/0", USAGE,
        ("redis is not installed", "pip install", "[redis]"), env={"PYTHONPATH": "."},
        files={"redis.py": "raise ModuleNotFoundError('hidden', name='redis')"},
    ),
    "not migrated": Case(
        "postgresql://postgres@{postgres}/{database}",
        says=("no table public.task_queue_schema", "taskflow migrate"), migrate=None,
    ),
    "another schema": Case(
        "postgresql://postgres@{postgres}/{database}",
        says=("no table nowhere.task_queue_schema", "taskflow migrate"), migrate=None,
        env={"TASKFLOW_POSTGRES_QUEUE_TABLE": "nowhere.task_queue"}, setup="tables",
    ),
    "no table's name": Case(
        "postgresql://postgres@{postgres}/{database}", USAGE,
        says=("postgres_queue_table", "'a.b c'"), env={"TASKFLOW_POSTGRES_QUEUE_TABLE": "a.b c"},
    ),
    "no right to create": Case(
        "postgresql://poor:kwakzork@{postgres}/{database}", says=("taskflow migrate",),
        migrate=("permission denied for schema public", "GRANT"),
        setup="DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public"
        " TO poor",
    ),
    "no right to read": Case(
        "postgresql://poor:kwakzork@{postgres}/{database}",
        says=("permission denied for table task_queue_schema", "GRANT"), setup="tables",
    ),
    "no right to write": Case(
        "postgresql://reader:kwakzork@{postgres}/{database}", migrate=None, setup=GRANTS,
        says=("'reader'", "GRANT DELETE, INSERT, UPDATE ON", '"public"."', 'TO "reader"'),
    ),
    "no right to count": Case(
        "postgresql://mine:kwakzork@{postgres}/{database}", migrate=None, setup=GRANTS,
        says=("'mine'", "GRANT USAGE ON SEQUENCE", "task_queue_counter"),
    ),
    "no scripts": Case("redis://noeval:kwakzork@{redis}/0", says=("evalsha", "ACL SETUSER")),
    "no keys": Case("redis://nokeys:kwakzork@{redis}/0", says=("nokeys:***@", "ACL SETUSER")),
    "no info": Case("redis://noinfo:kwakzork@{redis}/0", says=("info", "ACL SETUSER")),
    "no writes": Case("redis://nowrite:kwakzork@{redis}/0", says=("HSET", "ACL SETUSER")),
    "evicting": Case("redis://{evicting}/0", says=("allkeys-lru", "noeviction")),
}  # fmt: skip


def prepared(case: Case, servers: Servers, folder: Path) -> dict[str, str]:
    """What fills the case's texts, once everything is as it says."""
    (folder / "jobs.py").write_text(JOBS)
    for name, text in case.files.items():
        (folder / name).write_text(text)
    places = dict(servers.places)
    if "{database}" in case.url:
        places["database"] = servers.database()
        if case.setup == "tables" or case.setup is GRANTS:
            url = f"postgresql://postgres@{places['postgres']}/{places['database']}"
            done = taskflow("migrate", "--url", url, cwd=folder)
            assert done.returncode == 0, done.stderr
        if case.setup not in {"", "tables"}:
            servers.sql(case.setup, places["database"])
    return places


def stored(servers: Servers, places: Mapping[str, str]) -> str:
    """How many things there are in the database."""
    return servers.sql("SELECT count(*) FROM pg_class", places.get("database", "postgres"))


def check_line(text: str, says: tuple[str, ...], places: Mapping[str, str]) -> None:
    assert text.startswith("taskflow: ")
    assert text.count("\n") == 1
    for words in says:
        assert (words.format(**places) if "{" in words else words) in text


@pytest.mark.parametrize("name", SERVERS)
def test_one_line_and_an_exit_code(name: str, servers: Servers, tmp_path: Path) -> None:
    case = SERVERS[name]
    places = prepared(case, servers, tmp_path)
    before, untouched = stored(servers, places), contents(tmp_path)
    worker = ("run", "worker", "jobs:app")
    may_migrate = case.code != USAGE and (case.migrate is None or "redis" in case.url[:6])
    plain = worker if may_migrate else ("migrate",)
    env = {"TASKFLOW_URL": case.url.format(**places), **case.env}
    (code, out, loud), (also, printed, err) = side_by_side(
        (*worker, "--verbose"), plain, cwd=tmp_path, env=env, timeout=100
    )
    assert (code, also, out + printed) == (case.code, case.code, "")
    assert "Traceback" in loud
    check_line(loud.splitlines(keepends=True)[-1], case.says, places)
    check_line(err, case.migrate or case.says, places)
    assert not [one for one in SECRETS if one in loud + err]
    assert (stored(servers, places), contents(tmp_path)) == (before, untouched)


@pytest.mark.parametrize("name", URLS)
def test_what_is_no_url(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = URLS[name]
    monkeypatch.setenv("TASKFLOW_URL", case.url)
    with pytest.raises(ConfigError) as caught:
        driver_for(Config.from_env())
    text = str(caught.value)
    assert "\n" not in text
    assert not [words for words in case.says if words not in text]
    assert not [one for one in SECRETS if one in f"{text} {caught.value!r} {caught.value.value}"]
    assert caught.value.__cause__ is None or not [
        one for one in SECRETS if one in str(caught.value.__cause__)
    ]


def test_what_is_no_url_on_the_command_line(tmp_path: Path) -> None:
    case = URLS["a slash"]
    (tmp_path / "jobs.py").write_text(JOBS)
    untouched = contents(tmp_path)
    commands = [("run", "worker", "jobs:app", "--verbose"), ("migrate",)]
    (code, _, loud), (also, out, err) = side_by_side(
        *commands, cwd=tmp_path, env={"TASKFLOW_URL": case.url}, timeout=60
    )
    assert (code, also, out) == (USAGE, USAGE, "")
    check_line(err, case.says, {})
    assert loud.endswith(err)
    assert not [one for one in SECRETS if one in loud + err]
    assert contents(tmp_path) == untouched


PASSWORD = "kwak%3A%2F%3F%23%5B%5D%40%25zork%20%26%C3%BC"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://odd:{PASSWORD}@{{postgres}}/{{database}}",
        f"postgresql://{{postgres}}/{{database}}?user=odd&password={PASSWORD}&sslmode=prefer",
    ],
)
def test_a_password_of_odd_characters(url: str, servers: Servers, tmp_path: Path) -> None:
    places = {**servers.places, "database": servers.database()}
    done = taskflow("migrate", "--url", url.format(**places), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "applied 1" in done.stdout
    assert not [one for one in SECRETS if one in done.stdout]


def test_old_and_unfit_servers() -> None:
    """Nobody has them at hand; what they say of themselves is enough."""
    refusal = postgres_health.refusal
    assert refusal(130000, "UTF8", is_standby=False) is None
    assert "PostgreSQL 12 is too old: 13" in (refusal(120022, "UTF8", is_standby=False) or "")
    assert "LATIN1" in (refusal(150000, "LATIN1", is_standby=False) or "")
    assert "name the primary" in (refusal(150000, "UTF8", is_standby=True) or "")
    for version in ("6.0.16", "5.0"):
        problem = redis_health.refusal({"redis_version": version}, "redis://h")
        assert f"redis://h: Redis {version} is too old: 6.2" in str(problem)
    assert redis_health.refusal({"redis_version": "6.2.0"}, "redis://h") is None
    replica = redis_health.refusal({"redis_version": "7.0.0", "role": "slave"}, "redis://h")
    assert "name the master" in str(replica)
