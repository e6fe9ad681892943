"""Tasks of the process lane; a module of its own, because children import it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
from anyio import CancelScope

from taskflow import App, AsyncProcessTask, AsyncTask, SyncProcessTask, current, task

app = App()


class JsonCodec:
    """Another format than the default one."""

    content_type = "application/json"

    def encode(self, value: Any) -> bytes:
        return msgspec.json.encode(value)

    def decode(self, data: bytes, into: Any) -> Any:
        return msgspec.json.decode(data, type=into)


class Pid(SyncProcessTask[int]):
    kind = "child.Pid"

    def execute(self) -> int:
        return os.getpid()


class AsyncPid(AsyncProcessTask[int]):
    kind = "child.AsyncPid"

    async def execute(self) -> int:
        await anyio.lowlevel.checkpoint()
        return os.getpid()


@task(process=True, kind="child.environment")
def environment(prefix: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}


class Waits(SyncProcessTask[int]):
    """Says its pid in a file and waits for another file."""

    kind = "child.Waits"
    folder: str

    def execute(self) -> int:
        write(self.folder, "started", os.getpid())
        while not Path(self.folder, "go").exists():
            time.sleep(0.01)
        return os.getpid()


class Dies(SyncProcessTask[int]):
    """Takes its child with it on the first attempt."""

    kind = "child.Dies"
    max_attempts = 2
    retry_delay = 0
    how: str

    def execute(self) -> int:
        if current().attempt == 1:
            die(self.how)
        return current().attempt


class AsyncDies(AsyncProcessTask[int]):
    kind = "child.AsyncDies"
    max_attempts = 2
    retry_delay = 0
    how: str

    async def execute(self) -> int:
        if current().attempt == 1:
            die(self.how)
        return current().attempt


def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "fork" and os.fork() != 0:
        os._exit(4)  # the other one lives on, with everything open
    time.sleep(100)


class HoldsGil(SyncProcessTask[None]):
    """In one C call that never looks at signals."""

    kind = "child.HoldsGil"
    max_attempts = 1
    folder: str

    def execute(self) -> None:
        write(self.folder, "started", os.getpid())
        sum(range(10**12))


class AsyncHoldsGil(AsyncProcessTask[None]):
    kind = "child.AsyncHoldsGil"
    max_attempts = 1
    folder: str

    async def execute(self) -> None:
        write(self.folder, "started", os.getpid())
        sum(range(10**12))


class Cleans(AsyncProcessTask[None]):
    kind = "child.Cleans"
    max_attempts = 1
    folder: str

    async def execute(self) -> None:
        write(self.folder, "started", os.getpid())
        try:
            await anyio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(0.05)
                write(self.folder, "cleaned", current().is_cancelled)


class SyncCleans(SyncProcessTask[None]):
    kind = "child.SyncCleans"
    max_attempts = 1
    folder: str

    def execute(self) -> None:
        try:
            write(self.folder, "started", os.getpid())
            time.sleep(100)
        finally:
            write(self.folder, "cleaned", current().is_cancelled)


class Grandchild(SyncProcessTask[None]):
    kind = "child.Grandchild"
    max_attempts = 1
    folder: str
    exits: bool

    def execute(self) -> None:
        write(self.folder, "started", subprocess.Popen(["sleep", "1000"]).pid)
        if self.exits:
            os._exit(0)
        time.sleep(1000)


class Garbage(SyncProcessTask[None]):
    """Writes into every socket of its process, the line to the parent among them."""

    kind = "child.Garbage"
    max_attempts = 1
    data: bytes

    def execute(self) -> None:
        for name in os.listdir("/proc/self/fd"):
            try:
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    os.write(int(name), self.data)
            except OSError:
                pass


class Raises(SyncProcessTask[None]):
    kind = "child.Raises"
    max_attempts = 1
    what: str

    def execute(self) -> None:
        raise KINDS[self.what](self.what)


class AsyncRaises(AsyncProcessTask[None]):
    kind = "child.AsyncRaises"
    max_attempts = 1
    what: str
    in_group: bool = False

    async def execute(self) -> None:
        if not self.in_group:
            raise KINDS[self.what](self.what)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(raises, KINDS[self.what])
            await anyio.sleep(5)


async def raises(kind: type[BaseException]) -> None:
    raise kind("in a group")


KINDS: dict[str, type[BaseException]] = {
    "keyboard": KeyboardInterrupt, "exit": SystemExit, "value": ValueError,
}  # fmt: skip


class WrongResult(SyncProcessTask[int]):
    kind = "child.WrongResult"

    def execute(self) -> int:
        return "text"  # type: ignore[return-value]


class Prints(SyncProcessTask[int]):
    kind = "child.Prints"
    size: int

    def execute(self) -> int:
        sys.stdout.write("x" * self.size)
        sys.stdout.flush()
        os.write(2, b"\xff\0" * 100)
        return self.size


class BigResult(SyncProcessTask[bytes]):
    kind = "child.BigResult"
    size: int

    def execute(self) -> bytes:
        return bytes(self.size)


class Progresses(SyncProcessTask[None]):
    kind = "child.Progresses"
    folder: str

    def execute(self) -> None:
        current().progress_nowait(0.25, "a quarter")
        while not Path(self.folder, "go").exists():
            current().check_cancelled()
            time.sleep(0.01)


class Knows(AsyncProcessTask[dict[str, Any]]):
    kind = "child.Knows"
    tags = {"colour": "blue"}
    timeout = 60

    async def execute(self) -> dict[str, Any]:
        ctx = current()
        assert ctx.deadline is not None
        await ctx.progress(1.0)
        return {
            "id": ctx.id, "kind": ctx.kind, "queue": ctx.queue, "attempt": ctx.attempt,
            "max_attempts": ctx.max_attempts, "delivery": ctx.delivery, "tags": dict(ctx.tags),
            "dispatched_at": ctx.dispatched_at.timestamp(), "deadline": ctx.deadline.timestamp(),
            "worker_id": ctx.worker_id, "state": ctx.state, "is_cancelled": ctx.is_cancelled,
        }  # fmt: skip


class Follows(AsyncTask[str]):
    kind = "child.Follows"
    word: str

    async def execute(self) -> str:
        return self.word.upper()


class Dispatches(AsyncProcessTask[list[str]]):
    kind = "child.Dispatches"

    async def execute(self) -> list[str]:
        ids: list[str] = []

        async def one(word: str) -> None:
            ids.append((await Follows(word=word).dispatch()).id)

        async with anyio.create_task_group() as task_group:
            for word in ("a", "b", "c"):
                task_group.start_soon(one, word)
        return ids


class DispatchesBlocking(SyncProcessTask[list[str]]):
    kind = "child.DispatchesBlocking"

    def execute(self) -> list[str]:
        return [Follows(word=word).dispatch_blocking().id for word in ("a", "b", "c")]


class DispatchesTooBig(SyncProcessTask[str]):
    kind = "child.DispatchesTooBig"

    def execute(self) -> str:
        try:
            Follows(word="x" * 2000).dispatch_blocking()
        except Exception as exc:
            return type(exc).__name__
        return "stored"


class DispatchesTooLate(SyncProcessTask[None]):
    """Leaves a thread behind that dispatches when the body has long ended."""

    kind = "child.DispatchesTooLate"
    folder: str

    def execute(self) -> None:
        prepared = Follows(word="late")
        threading.Thread(target=self._late, args=(prepared, current_app()), daemon=True).start()

    def _late(self, prepared: Follows, app: App[Any]) -> None:
        time.sleep(0.2)
        try:
            prepared.dispatch_blocking(app=app)
        except Exception as exc:
            write(self.folder, "refused", f"{type(exc).__name__}: {exc}")


def current_app() -> App[Any]:
    from taskflow._port.open_apps import find_app

    found: App[Any] = find_app()
    return found


class Reports(AsyncProcessTask[None]):
    """Fails, and its hook says where and how."""

    kind = "child.Reports"
    max_attempts = 1
    folder: str
    hangs: bool = False
    sleeps: bool = False

    async def execute(self) -> None:
        write(self.folder, "pid", os.getpid())
        if self.sleeps:
            await anyio.sleep_forever()
        raise OSError("the disk")

    async def failed(self, error: Exception) -> None:
        write(self.folder, "failed", f"{os.getpid()} {error!r} {current().id} {current().attempt}")
        if self.hangs:
            await anyio.sleep_forever()


@asynccontextmanager
async def lifespan(app: App[Any]) -> AsyncIterator[dict[str, Any]]:
    """Notes in LIFESPAN_FOLDER which process entered it and left it."""
    folder = os.environ["LIFESPAN_FOLDER"]
    write(folder, f"entered-{os.getpid()}", app.loop is not None)
    yield {"pid": os.getpid()}
    await anyio.sleep(0.1)
    write(folder, f"left-{os.getpid()}", "")


@asynccontextmanager
async def no_lifespan(app: App[Any]) -> AsyncIterator[None]:  # noqa: ARG001
    yield


class StatePid(SyncProcessTask[list[int]]):
    kind = "child.StatePid"

    def execute(self) -> list[int]:
        return [current().state["pid"], os.getpid()]


def write(folder: str, name: str, what: object) -> None:
    """Whole or not at all."""
    hidden = Path(folder, f".{name}-{os.getpid()}")
    hidden.write_text(str(what))
    hidden.rename(Path(folder, name))
