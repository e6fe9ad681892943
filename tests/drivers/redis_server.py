"""Private Redis servers: on a free port, in a temporary folder, one for each test process."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tests.drivers.servers import READY, free_port, program, temporary_folder

__all__ = ("RedisServer", "redis_running")


class RedisServer:
    """A Redis, or a Valkey, of our own; dies with this process.

    ``settings`` are directives of its configuration, with ``_`` for ``-``; ``words`` come first on
    its command line.
    """

    def __init__(self, **settings: str) -> None:
        self.port = free_port()
        self.folder = temporary_folder("taskflow-redis-")
        self.settings = {
            "bind": "127.0.0.1", "dir": str(self.folder), "save": "", "appendonly": "no",
            "unixsocket": str(self.folder / "socket"), **settings,
        }  # fmt: skip
        self.words: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def path() -> str | None:
        return program("redis-server") or program("valkey-server")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> str:
        return self.settings["unixsocket"]

    def start(self) -> Self:
        path = self.path()
        assert path is not None
        words = [path, *self.words, "--port", str(self.port), "--daemonize", "no"]
        for name, value in self.settings.items():
            words += [f"--{name.replace('_', '-')}", value]
        if shutil.which("setpriv"):
            words = ["setpriv", "--pdeathsig=SIGKILL", *words]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        self._await_ready()
        return self

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=READY) as one:
                    one.sendall(b"PING\r\n")
                    if one.recv(5) in {b"+PONG", b"-NOAU"}:
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM: in order; SIGKILL: as after a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(READY)

    def remove(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def redis_running(**settings: str) -> Iterator[RedisServer]:
    """A server for one test that needs settings of its own."""
    server = RedisServer(**settings)
    try:
        yield server.start()
    finally:
        server.remove()
