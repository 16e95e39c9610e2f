"""Bytes in and out of this process's standard streams, without threads where the kernel allows it."""

from __future__ import annotations

import os
import select
import socket
import stat
import sys

import anyio
import anyio.to_thread

READ_BYTES = 1 << 16
PIPE_ROOM = 4096
"""A pipe that polls as writable takes this much without blocking (PIPE_BUF)."""


class Wire:
    """The two ends of a client's connection, taken from descriptors 0 and 1.

    While it is held, descriptor 0 is at its end and 1 leads to stderr: what a library or a child prints
    never gets among the messages.
    """

    def __init__(self) -> None:
        self._in = _move_away(0)
        self._out = _move_away(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._in_socket = _as_socket(self._in)
        self._out_socket = _as_socket(self._out)
        self._in_waits = _can_wait(self._in, select.POLLIN)
        self._out_waits = _can_wait(self._out, select.POLLOUT)

    async def read(self) -> bytes:
        """What has come, at least one byte, or b"" at the end."""
        try:
            if not self._in_waits:
                return await anyio.to_thread.run_sync(
                    os.read, self._in, READ_BYTES, abandon_on_cancel=True
                )
            await anyio.wait_readable(self._in)
            if self._in_socket is not None:
                return self._in_socket.recv(READ_BYTES)
            return os.read(self._in, READ_BYTES)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises `BrokenPipeError` when nobody reads any more."""
        if not self._out_waits:
            await anyio.to_thread.run_sync(_write_all, self._out, data)
            return
        view = memoryview(data)
        while view:
            # Never O_NONBLOCK: the other side may share the description.
            if not select.select([], [self._out], [], 0)[1]:
                await anyio.wait_writable(self._out)
            if self._out_socket is not None:
                try:
                    view = view[self._out_socket.send(view, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._out)
            else:
                view = view[os.write(self._out, view[:PIPE_ROOM]) :]


def _move_away(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def _as_socket(descriptor: int) -> socket.socket | None:
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return socket.socket(fileno=os.dup(descriptor))
    return None


def _can_wait(descriptor: int, event: int) -> bool:
    # Regular files and /dev/null cannot be waited for.
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or not hasattr(select, "epoll"):
        return False
    try:
        with select.epoll() as probe:
            probe.register(descriptor, event)
    except OSError:
        return False
    return True


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
