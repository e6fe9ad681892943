"""Private servers for tests: on a free port, in a temporary folder, one for each test process."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

READY = 60.0
"""Seconds that a server may take to start."""
PORTS = range(10_000, 22_000)
PLACES = (Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))


def missing(what: str) -> None:
    """Skip where somebody works; fail where the whole is judged."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed", pytrace=False)
    pytest.skip(f"{what} is not installed")


def free_port() -> int:
    """Outside of what the system hands out itself, so that a server that was stopped finds its
    port free again.
    """
    choose = random.SystemRandom()
    for _ in range(100):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", choose.choice(PORTS)))
            return int(one.getsockname()[1])
    raise RuntimeError(f"no free port in {PORTS}")


def temporary_folder(prefix: str) -> Path:
    """In memory where there is such a place."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix=prefix, dir=shm if shm.is_dir() else None))


def program(name: str) -> str | None:
    found = shutil.which(name)
    return found or next((str(one / name) for one in PLACES if (one / name).exists()), None)


class PostgresServer:
    """A PostgreSQL of our own; trusts everybody on the loopback address.

    As root it runs under the user ``postgres``, because it refuses to run as root.
    """

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self.folder = temporary_folder("taskflow-pg-")
        self.settings = {
            "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off",
            "max_connections": "200", "shared_buffers": "128MB", "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder), "autovacuum_naptime": "5s", **settings,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.run_as = [
            "setpriv",
            "--pdeathsig=SIGQUIT",
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
        ]
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        else:
            self.run_as = ["setpriv", "--pdeathsig=SIGQUIT"]

    @classmethod
    def is_there(cls) -> bool:
        return program("initdb") is not None and program("postgres") is not None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def create(self) -> Self:
        """Make the data folder and start."""
        initdb = program("initdb")
        assert initdb is not None
        subprocess.run(
            [*self.run_as, initdb, "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, timeout=READY, cwd="/",
        )  # fmt: skip
        self.start()
        return self

    def start(self) -> None:
        postgres = program("postgres")
        assert postgres is not None
        options = [word for item in self.settings.items() for word in ("-c", "=".join(item))]
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [*self.run_as, postgres, "-D", str(self.folder / "data"), "-p", str(self.port),
                 *options], stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        self._await_ready()

    def _await_ready(self) -> None:
        assert self._process is not None
        isready = program("pg_isready")
        assert isready is not None
        deadline = time.monotonic() + READY
        while subprocess.run(
            [isready, "-q", "-U", "postgres", "-h", "127.0.0.1", "-p", str(self.port)],
            check=False,
            cwd="/",
        ).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast; SIGQUIT: immediate, as after a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(READY)

    def kill(self) -> None:
        """SIGKILL to all of it. Stopped first: its processes, each of a session of its own, are
        not to be replaced while they are killed.
        """
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        process.wait(READY)

    def create_database(self, name: str) -> str:
        """A database of its own; its URL."""
        createdb = program("createdb")
        assert createdb is not None
        subprocess.run(
            [createdb, "-U", "postgres", "-h", "127.0.0.1", "-p", str(self.port), name],
            check=True, timeout=READY, cwd="/",
        )  # fmt: skip
        return self.url.rpartition("/")[0] + f"/{name}"

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)
