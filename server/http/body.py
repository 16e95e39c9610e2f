"""The body of a request, read whole before anybody sees it, and never more of it than is allowed."""

from __future__ import annotations

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from .errors import Refused

LINGER_SECONDS = 5.0
"""How long a sender who was refused may go on, so that he sees the answer and not a reset."""
SILENCE_SECONDS = 1.0
"""How long he may pause meanwhile."""

MOST_VALUES = 100_000
"""Of JSON in one body: two million fit into 4 MiB, and while those are looked at nobody else is answered."""


async def read_body(receive: Receive, most: int, seconds: float) -> bytes:
    """The whole body. Raises `Refused` when it has more than `most` bytes, or takes longer than `seconds`."""
    parts: list[bytes] = []
    size = 0
    with anyio.move_on_after(seconds):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise too_large(most)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
    raise Refused(408, "request_timeout", f"The body did not arrive within {seconds:g} seconds.")


def too_large(most: int) -> Refused:
    """The answer to a body that has more than `most` bytes."""
    return Refused(413, "too_large", f"The body is larger than {most} bytes.")


def refuse_crowd(body: bytes) -> None:
    """Raise `Refused` for JSON of more than `MOST_VALUES` values, before anybody reads it."""
    # What is in strings does not count; but only a body that has much of it must be looked at so closely.
    if len(body) > MOST_VALUES < _marks(body) and _is_crowd(body):
        told = f"The body has more than {MOST_VALUES} values. Put large data into a file of the project."
        raise Refused(400, "invalid_request", told)


def _is_crowd(body: bytes) -> bool:
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * MOST_VALUES:  # a member has two strings of two quotes each
        return True
    return _marks(b"".join(plain.split(b'"')[::2])) > MOST_VALUES


def _marks(json: bytes) -> int:
    return json.count(b",") + json.count(b"[") + json.count(b"{")


async def linger(receive: Receive) -> None:
    """Throw away what still comes, for a moment: a connection that is closed on unread bytes loses the answer, too."""
    with anyio.move_on_after(LINGER_SECONDS):
        more = True
        while more:
            more = False
            with anyio.move_on_after(SILENCE_SECONDS):
                more = (await receive()).get("more_body", False)


def again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body first."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give
