"""One child process, seen from the worker."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
from anyio import CancelScope
from anyio.abc import UNIXSocketStream

from taskflow._worker.lanes.frames import Answer, Asked, BadFrameError, Init, Ready, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = ("Child", "ChildDiedError")

START_TIMEOUT: Final = 30.0
"""Seconds that a child may take until it is ready."""
REAP_TIMEOUT: Final = 5.0
"""Seconds that a killed child may take to be gone."""
CHUNK: Final = 65_536

PROGRAM: Final = (
    "import sys; fd, parent, *sys.path[:] = sys.argv[1:]; "
    "from taskflow._worker.lanes.process_child import main; main(int(fd), int(parent))"
)
"""The parent's ``sys.path`` holds from the first import: ``-m`` would put the folder first."""

_decoder = msgspec.msgpack.Decoder(Answer)


class ChildDiedError(Exception):
    """The child is gone or never was; ``returncode`` as ``Popen`` has it."""

    def __init__(self, returncode: int | None, problem: str = "") -> None:
        self.returncode = returncode
        super().__init__(problem or f"return code {returncode}")


class Child:
    """A started child. Used by one slot at a time; ``kill`` may be called from any thread."""

    def __init__(
        self, process: subprocess.Popen[bytes], sock: socket.socket, stream: UNIXSocketStream
    ) -> None:
        self._process = process
        self._socket = sock
        self._stream = stream
        self._buffer = bytearray()
        self._pidfd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
        self._either: select.epoll | None = None
        if self._pidfd is not None:
            self._either = select.epoll()
            self._either.register(self._pidfd, select.EPOLLIN)
            self._either.register(sock, select.EPOLLIN)
        self.jobs = 0

    @classmethod
    async def start(cls, init: Init, env: Mapping[str, str] | None) -> Self:
        """Start a child on this thread and wait until it is ready.

        The event loop's own thread starts it, because PDEATHSIG strikes when that thread ends.

        Raises:
            ChildDiedError: It did not come up.
        """
        child: Self | None = None
        with CancelScope(shield=True):
            child = await cls._spawn(env)
        assert child is not None
        try:
            with anyio.fail_after(START_TIMEOUT):
                await child.send(init)
                if not isinstance(await child.receive(), Ready):
                    raise BadFrameError("no ready frame")
        except (TimeoutError, BadFrameError):
            await child.end()
            raise ChildDiedError(child.returncode) from None
        except BaseException:
            await child.end()
            raise
        return child

    @classmethod
    async def _spawn(cls, env: Mapping[str, str] | None) -> Self:
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            raise ChildDiedError(None, str(exc)) from exc
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own program; see start
                    [
                        sys.executable, "-c", PROGRAM, str(theirs.fileno()), str(os.getpid()),
                        *sys.path,
                    ],
                    start_new_session=True, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
                    env=None if env is None else dict(env),
                )  # fmt: skip
        except OSError as exc:
            ours.close()
            raise ChildDiedError(None, str(exc)) from exc
        try:
            ours.setblocking(False)
            return cls(process, ours, await UNIXSocketStream.from_socket(ours))
        except OSError as exc:
            ours.close()
            process.kill()
            raise ChildDiedError(process.wait(), str(exc)) from exc

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As ``Popen`` has it; ``None`` while it runs."""
        return self._process.poll()

    @property
    def memory(self) -> int:
        """Bytes of resident memory; 0 where that cannot be read."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0

    async def send(self, frame: Asked) -> None:
        """Send one frame.

        Raises:
            ChildDiedError: The child is gone.
        """
        try:
            await self._stream.send(pack(frame))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise ChildDiedError(await self._gone()) from None

    async def receive(self) -> Answer:
        """The next frame. Cancelling loses nothing of the stream.

        Raises:
            ChildDiedError: The child is gone.
            BadFrameError: It talks nonsense.
        """
        while (body := unpack(self._buffer)) is None:
            await self._readable()
            try:
                self._buffer += await self._stream.receive(CHUNK)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                raise ChildDiedError(await self._gone()) from None
        try:
            frame: Answer = _decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
            raise BadFrameError(str(exc)) from exc
        return frame

    async def _readable(self) -> None:
        """Return when there is something to read or the child is dead.

        What it forked may keep the line open; what was written before can still be read.
        """
        if self._either is None:
            return
        await anyio.wait_readable(self._either)
        if self.returncode is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)

    async def _gone(self) -> int | None:
        """Its return code, a moment after it hung up; one that lives on without us is ended."""
        with CancelScope(shield=True):
            await self._wait(1.0)
            if self.returncode is None:
                self.kill()
                await self._wait(REAP_TIMEOUT)
        return self.returncode

    def terminate(self) -> None:
        """Ask it to stop its body."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything that it started, at once."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _wait(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while self.returncode is None:
                if self._pidfd is None:
                    await anyio.sleep(0.01)
                else:
                    await anyio.wait_readable(self._pidfd)

    async def end(self, grace: float = 0.0) -> None:
        """Hang up, let it end by itself for ``grace`` seconds, then kill; leaves no zombie."""
        with CancelScope(shield=True):
            await self._stream.aclose()
            if grace:
                self.terminate()
                await self._wait(grace)
            self._kill_group()
            await self._wait(REAP_TIMEOUT)
            if self._either is not None and self._pidfd is not None:
                self._either.close()
                os.close(self._pidfd)
                self._either = self._pidfd = None

    def _kill_group(self) -> None:
        """What the child started goes with it, also when it has ended by itself."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
