"""The program that a process child runs; ``process_handle`` starts it.

The main thread reads a job, runs it and answers. Sync bodies run on it directly; async bodies on
an event loop that stays warm in a second thread. SIGTERM stops the body, SIGINT is the parent's
business, and the child dies with its parent.
"""

from __future__ import annotations

import contextvars
import ctypes
import importlib
import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from anyio import CancelScope
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.lowlevel import EventLoopToken, current_token

from taskflow import context as task_context
from taskflow._core.outcomes import Failed, Released
from taskflow._port.open_apps import enter_context
from taskflow._worker.attempt import BodyCancelled
from taskflow._worker.lanes.classify import classify, error_info
from taskflow._worker.lanes.frames import (
    Answer,
    Asked,
    Begun,
    Done,
    Hook,
    HookDone,
    Init,
    Key,
    Ready,
    Report,
    Run,
    pack,
    unpack,
)
from taskflow._worker.lanes.process_dispatch import ParentDriver
from taskflow._worker.lanes.results import encode_result
from taskflow._worker.posting import post
from taskflow.app import App
from taskflow.context import Context
from taskflow.errors import JobFailedError

if TYPE_CHECKING:
    from taskflow._core.records import ErrorInfo, Leased, Progress
    from taskflow._core.registry import TaskDefinition

__all__ = ("main",)

PR_SET_PDEATHSIG: Final = 1
_decoder = msgspec.msgpack.Decoder(Asked)


class Channel:
    """The child's end of the socket; writes from any thread, reads from one at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._writing = threading.Lock()
        self.has_hung_up = False

    def send(self, frame: Answer) -> None:
        """Send one frame."""
        data = pack(frame)
        with self._writing:
            self._sock.sendall(data)

    def receive(self) -> Asked | None:
        """The next frame; ``None`` when the parent or ``hang_up`` has hung up."""
        while (body := unpack(self._buffer)) is None or self.has_hung_up:
            chunk = self._sock.recv(65_536)
            if not chunk:
                return None
            self._buffer += chunk
        frame: Asked = _decoder.decode(body)
        return frame

    def hang_up(self) -> None:
        """Have ``receive`` say that the parent has hung up; for a signal handler."""
        self.has_hung_up = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)


class Body:
    """Who runs the present body: takes its progress, knows whether it is to stop."""

    def __init__(self, channel: Channel, key: Key) -> None:
        self._channel = channel
        self._key = key
        self.is_cancelled = False
        self.is_in_main = False
        self.scope: CancelScope | None = None
        self.loop: EventLoopToken | None = None

    def report(self, progress: Progress) -> None:
        """Send progress to the parent."""
        self._channel.send(Report(self._key, progress))

    def check_cancelled(self) -> None:
        """Raise when the body is to stop."""
        if self.is_cancelled:
            raise BodyCancelled

    def stop(self) -> None:
        """Called by the signal handler, on the main thread."""
        self.is_cancelled = True
        if self.loop is not None and self.scope is not None:
            post(self.loop, self.scope.cancel)
        elif self.is_in_main:
            self.is_in_main = False
            raise BodyCancelled


class Server:
    """Runs jobs one after another until the parent hangs up."""

    def __init__(self, channel: Channel, init: Init, portal: BlockingPortal) -> None:
        self._channel = channel
        self._init = init
        self._portal = portal
        self._driver = ParentDriver(channel.send, channel.receive)
        codec = None if init.codec is None else load(init.codec)()
        self._app: App[Any] = App(init.config, driver=self._driver, codec=codec)
        self._codec = self._app.codec
        self._state: Any = None
        self._body: Body | None = None
        self._last: tuple[Key, Exception] | None = None

    def open(self, stack: ExitStack) -> None:
        """Enter the app and its lifespan on the warm loop; then SIGTERM means the body."""
        stack.enter_context(self._portal.wrap_async_context_manager(self._app))
        if self._init.lifespan is not None:
            lifespan = load(self._init.lifespan)
            manager = self._portal.wrap_async_context_manager(lifespan(self._app))
            self._state = stack.enter_context(manager)
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def serve(self) -> None:
        """Until the parent hangs up."""
        self._channel.send(Ready())
        while (frame := self._channel.receive()) is not None:
            if not isinstance(frame, Run | Hook):
                continue
            key = (frame.job.token.id, frame.job.token.delivery)
            self._body = body = Body(self._channel, key)
            with self._driver.while_body_runs():
                if isinstance(frame, Run):
                    reply = self._run(frame, body, key)
                else:
                    reply = self._hook(frame, body, key)
            self._body = None
            self._channel.send(reply)
            if body.is_cancelled:
                return

    def _on_sigterm(self, *_: object) -> None:
        if self._body is None:
            self._channel.hang_up()  # and leave in order: the lifespan has its end
        else:
            self._body.stop()

    def _run(self, frame: Run, body: Body, key: Key) -> Answer:
        self._last = None
        self._channel.send(Begun(key))
        try:
            definition: TaskDefinition = load(frame.location).__taskflow__
        except BaseException as exc:
            return Done(key, _unloadable(frame.location, exc), is_spent=True)
        try:
            payload = self._codec.decode(frame.job.spec.payload, definition.payload)
        except Exception as exc:
            return Done(key, Failed(error_info(exc)))
        context = self._context(frame.job, body, frame.deadline)
        try:
            value = self._call(definition.is_async, context, body, definition.run, payload)
        except BodyCancelled:
            return Done(key, Released(started=True), is_spent=True)
        except Exception as exc:
            self._last = (key, exc)
            outcome: Any = classify(definition, payload, exc)
            return Done(key, outcome, is_spent=body.is_cancelled)
        except BaseException as exc:
            outcome = classify(definition, payload, exc)
            return Done(key, outcome, is_spent=True)
        outcome = encode_result(self._codec, definition, value, self._init.config.max_result)
        return Done(key, outcome, is_spent=body.is_cancelled)

    def _context(self, job: Leased, body: Body, deadline: float | None) -> contextvars.Context:
        """A fresh context in which ``current()`` and ``dispatch()`` work."""
        context = contextvars.copy_context()
        current = Context(
            job, body, worker_id=self._init.worker_id, state=self._state, deadline=deadline
        )
        context.run(task_context._current.set, current)  # noqa: SLF001
        context.run(enter_context, self._app)
        return context

    def _call(
        self, is_async: bool, context: contextvars.Context, body: Body, function: Any, *args: Any
    ) -> Any:
        if is_async:
            future = context.run(self._portal.start_task_soon, self._on_loop, body, function, *args)
            error, value = future.result()
            if error is not None:
                raise error
            return value
        body.is_in_main = True
        try:
            body.check_cancelled()  # it may have been told before it began
            return context.run(function, *args)
        finally:
            body.is_in_main = False

    async def _on_loop(
        self, body: Body, function: Any, *args: Any
    ) -> tuple[BaseException | None, Any]:
        """Run an async body in a scope; whatever it raises is a value to the portal."""
        try:
            with CancelScope() as scope:
                body.scope, body.loop = scope, current_token()
                if body.is_cancelled:
                    scope.cancel()
                return None, await function(*args)
            return BodyCancelled(), None
        except BaseException as exc:  # the portal must outlive the body
            return exc, None
        finally:
            body.scope = body.loop = None

    def _hook(self, frame: Hook, body: Body, key: Key) -> Answer:
        with suppress(BaseException):  # best effort; the parent knows no better either
            definition: TaskDefinition = load(frame.location).__taskflow__
            payload = self._codec.decode(frame.job.spec.payload, definition.payload)
            whose, error = self._last or (None, None)
            if error is None or whose != key:
                error = _error(key, frame.error)
            context = self._context(frame.job, body, None)
            self._call(definition.is_async, context, body, definition.failed, payload, error)
        return HookDone(key)


def load(location: str) -> Any:
    """The object at ``module:qualname``, a location of the parent's own registry."""
    module, _, qualname = location.partition(":")
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def _error(key: Key, info: ErrorInfo) -> Exception:
    """What a hook is called with when the body ended in another process, or was ended."""
    if info.type == "TimeoutError":
        return TimeoutError(info.message)
    return JobFailedError(
        job_id=key[0], reason="failed", type=info.type, message=info.message,
        traceback=info.traceback,
    )  # fmt: skip


def _unloadable(location: str, error: BaseException) -> Failed:
    """A failed attempt, so that somebody hears of it; the next deploy may do better."""
    info = error_info(error)
    message = f"a process child cannot import {location}: {info.message}"
    return Failed(msgspec.structs.replace(info, message=message))


def _die_with(parent: int) -> None:
    """Be killed when the parent dies, also inside C code that holds the GIL."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)  # it died before we could ask


def main(fd: int, parent: int) -> None:
    """Run until the parent hangs up.

    Args:
        fd: The child's end of the socket.
        parent: The process that must be the parent.
    """
    _die_with(parent)
    os.set_inheritable(fd, False)  # what a body starts must not keep the line open
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    channel = Channel(socket.socket(fileno=fd))
    init = channel.receive()
    if not isinstance(init, Init):
        return  # the parent has hung up already
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal(init.backend))
        server = Server(channel, init, portal)
        server.open(stack)
        with suppress(BrokenPipeError, ConnectionResetError):
            server.serve()
