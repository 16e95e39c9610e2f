"""The worker's control socket: whether it lives, and a cancel that the store cannot take.

A line of JSON each way, in a private folder and only for the same user. Where there can be no socket the rest works.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from anyio.streams.buffered import BufferedByteReceiveStream

log = logging.getLogger(__name__)

MOST_BYTES = 65_536
PATIENCE_SECONDS = 15.0
_CUT_OFF = (
    anyio.BrokenResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
)
Request = dict[str, Any]


async def serve(
    path: Path,
    answer: Callable[[Request], Awaitable[Request]],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests on `path` until cancelled. Where there can be no socket there is none."""

    async def handle(stream: SocketStream) -> None:
        try:
            async with stream:
                if not _same_user(stream):
                    return
                with anyio.move_on_after(PATIENCE_SECONDS):
                    asked = await BufferedByteReceiveStream(stream).receive_until(b"\n", MOST_BYTES)
                    said = await answer(json.loads(asked))
                    await stream.send(json.dumps(said).encode() + b"\n")
        except Exception:
            # Whoever asks wrongly, or is gone, must not end the worker.
            log.info("a request on the control socket was not answered", exc_info=True)

    try:
        with _short(path) as short:
            listener = await anyio.create_unix_listener(short, mode=0o600)
    except OSError as error:
        log.warning("no control socket, so a cancel needs the store: %s", error)
        task_status.started()
        return
    async with listener:
        task_status.started()
        await listener.serve(handle)


async def ask(path: Path, request: Request, seconds: float = PATIENCE_SECONDS) -> Request | None:
    """The answer, or None where nobody answers in time."""
    try:
        with anyio.fail_after(seconds), _short(path) as short:
            async with await anyio.connect_unix(short) as stream:
                await stream.send(json.dumps(request).encode() + b"\n")
                said = await BufferedByteReceiveStream(stream).receive_until(b"\n", MOST_BYTES)
                answer: Request = json.loads(said)
                return answer
    except (OSError, ValueError, *_CUT_OFF):
        return None


def _same_user(stream: SocketStream) -> bool:
    peer = getattr(socket, "SO_PEERCRED", None)
    if peer is None:
        return True  # the folder is ours alone
    raw = stream.extra(SocketAttribute.raw_socket)
    _, uid, _ = struct.unpack("3i", raw.getsockopt(socket.SOL_SOCKET, peer, 12))
    return bool(uid == os.getuid())


@contextmanager
def _short(path: Path) -> Generator[str]:
    """A name for `path` that fits into a socket address, which has room for some 100 characters."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        through = Path(f"/proc/self/fd/{folder}")
        yield str(through / path.name) if through.exists() else str(path)
    finally:
        os.close(folder)
