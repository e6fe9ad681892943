"""Private servers for benchmarks: on a free port, their data on disk, gone with this process.

PostgreSQL has its default settings: fsync and synchronous commits are on. Redis appends to a file
that it syncs every second, as its makers advise for queues; nothing rewrites that file meanwhile.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ("MissingServer", "PostgresServer", "RedisServer", "servers")

PORTS = range(10_000, 22_000)
READY = 60.0
"""Seconds that a server may take to start, and a call of one of its programs."""
PLACES = (Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))


class MissingServer(Exception):
    """The program is not installed."""


class RedisServer:
    """A Redis, or a Valkey."""

    name = "Redis"
    note = "appendonly, fsync every second"

    def __init__(self) -> None:
        path = _find("redis-server", "valkey-server")
        self.port = _free_port()
        self._folder = _folder("redis")
        settings = {
            "bind": "127.0.0.1", "port": str(self.port), "dir": str(self._folder), "save": "",
            "appendonly": "yes", "appendfsync": "everysec", "auto-aof-rewrite-percentage": "0",
            "daemonize": "no",
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self._process = _start(["setpriv", "--pdeathsig=SIGKILL", path, *words], self._folder)
        _await(self._process, self._folder, lambda: self._ask(b"PING") == b"+PONG\r\n")

    def cpu(self) -> float:
        """Seconds of a core that it used so far."""
        return _cpu_of(self._process.pid)

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def fresh(self) -> str:
        """An empty store, its file rewritten; the URL."""
        if self._ask(b"FLUSHALL SYNC") != b"+OK\r\n":
            raise RuntimeError("FLUSHALL failed")
        self._ask(b"BGREWRITEAOF")
        deadline = time.monotonic() + READY
        while b"aof_rewrite_in_progress:1" in self._ask(b"INFO persistence"):
            if time.monotonic() > deadline:
                raise RuntimeError("Redis did not rewrite its file in time")
            time.sleep(0.02)
        return self.url

    def settled(self, url: str) -> None:
        """Nothing is left to do of what was stored."""

    def _ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=READY) as one:
            one.sendall(command + b"\r\n")
            return one.recv(1 << 16)

    def remove(self) -> None:
        """Stop it; nothing stays."""
        _stop(self._process, signal.SIGKILL, self._folder)


class PostgresServer:
    """A PostgreSQL that trusts everybody on the loopback address."""

    name = "PostgreSQL"
    note = "default settings, on disk, fsync on"

    def __init__(self, *options: str) -> None:
        initdb, postgres = _find("initdb"), _find("postgres")
        self._psql, self._isready = _find("psql"), _find("pg_isready")
        self.port, self._number = _free_port(), 0
        self._folder = _folder("postgres")
        self._as = _owner(self._folder)
        _call(
            [*self._as, initdb, "-D", f"{self._folder}/data", "-U", "postgres", "-A", "trust",
             "-E", "UTF8", "--locale=C"]
        )  # fmt: skip
        words = [
            postgres, "-D", f"{self._folder}/data", "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}",
            "-c", "max_connections=200", *options,
        ]  # fmt: skip
        self._process = _start([*self._as, *words], self._folder)
        _await(self._process, self._folder, self._is_ready)

    def _is_ready(self) -> bool:
        words = [self._isready, "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        return subprocess.run(words, check=False, cwd="/", timeout=READY).returncode == 0

    def cpu(self) -> float:
        """Seconds of a core that all its processes used so far, those that ended included."""
        parent = self._process.pid
        return _cpu_of(parent, *_children_of(parent))

    def url_of(self, database: str) -> str:
        """What clients connect to."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """An empty database, the last one dropped; its URL."""
        self.sql("postgres", f"DROP DATABASE IF EXISTS jobs_{self._number} WITH (FORCE)")
        self._number += 1
        self.sql("postgres", f"CREATE DATABASE jobs_{self._number}")
        self.sql("postgres", "CHECKPOINT")  # the next one is minutes away
        return self.url_of(f"jobs_{self._number}")

    def settled(self, url: str) -> None:
        """As after a while: the statistics are there."""
        self.sql(url.rsplit("/", 1)[1], "VACUUM ANALYZE")

    def sql(self, database: str, statement: str) -> str:
        """Run it; what it returned, unaligned."""
        return _call([self._psql, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement,
                      self.url_of(database)])  # fmt: skip

    def remove(self) -> None:
        """Stop it; nothing stays."""
        _stop(self._process, signal.SIGQUIT, self._folder)


Server = RedisServer | PostgresServer


@contextmanager
def servers(kind: type[RedisServer] | type[PostgresServer]) -> Iterator[Server]:
    """One that runs as long as the block, also when this process is asked to end.

    Raises:
        MissingServer: It is not installed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = kind()
    try:
        yield server
    finally:
        server.remove()


def _cpu_of(*pids: int) -> float:
    ticks = 0
    for pid in pids:
        try:
            ticks += sum(map(int, _stat(pid)[11:15]))  # its own and that of reaped children
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def _children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(_stat(int(entry.name))[1]) == parent:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _find(*names: str) -> str:
    for name in names:
        found = shutil.which(name)
        if found:
            return found
        for place in PLACES:
            if (place / name).exists():
                return str(place / name)
    raise MissingServer(f"{names[0]} is not installed")


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"taskflow-benchmark-{name}-", dir="/var/tmp"))


def _owner(folder: Path) -> list[str]:
    """How to run as somebody whom PostgreSQL allows; it refuses to run as root."""
    words = ["setpriv", "--pdeathsig=SIGQUIT"]
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        words += ["--reuid=postgres", "--regid=postgres", "--init-groups"]
    return words


def _start(words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, cwd="/")


def _await(process: subprocess.Popen[bytes], folder: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY
    while True:
        try:
            if is_ready():
                return
        except OSError:
            pass
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError((folder / "log").read_text())
        time.sleep(0.05)


def _call(words: Sequence[str]) -> str:
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=READY, cwd="/"
    )
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _stop(process: subprocess.Popen[bytes], how: signal.Signals, folder: Path) -> None:
    process.send_signal(how)
    process.wait(READY)
    shutil.rmtree(folder, ignore_errors=True)
