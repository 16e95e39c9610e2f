"""What the small process of a client and the resident say to each other: frames on a unix socket.

Standard library only. A frame is a kind (1 byte), a line's number and a length (4 bytes each, big-endian), and
that many bytes. The small process numbers the client's lines; the resident says of each when it has been dealt
with. So what a resident that died has left undone can be given to the next one, and nothing is answered twice.
"""

from __future__ import annotations

# From the small process.
HELLO = 1
"""`pack`ed: the connection's id, the project, the store, and the environment as NAME=VALUE."""
LINE = 2
LONG = 3
"""A line with more than `MAX_LINE_BYTES`; they are not sent."""
KEPT = 4
"""A line that an earlier resident has answered and this one must know too; its answer is nobody's."""

# From the resident.
WELCOME = 11
REFUSED = 12
TEXT = 13
"""A line for the client that answers none of its own."""
ANSWER = 14
"""A line for the client that answers its line of this number."""
DONE = 15
"""The line of this number needs no answer any more."""
KEEP = 16
"""The line of this number belongs to the handshake: the next resident must get it as `KEPT`."""
LOG = 17
"""Text for the client's log, which is standard error."""
END = 18
"""The client has closed its end and was told what there was to tell: what is unanswered stays so."""

HEAD_BYTES = 9
MAX_BYTES = 64 * 1024 * 1024
"""Nothing that we send is longer; whoever says so is not one of us."""


class NotAFrame(Exception):
    """The other side does not speak this language."""


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    return bytes((kind,)) + number.to_bytes(4, "big") + len(payload).to_bytes(4, "big") + payload


class Frames:
    """Splits a stream into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The complete frames as (kind, number, payload). Raises `NotAFrame`."""
        held = self._held
        held += data
        found: list[tuple[int, int, bytes]] = []
        start = 0
        while len(held) - start >= HEAD_BYTES:
            length = int.from_bytes(held[start + 5 : start + HEAD_BYTES], "big")
            if length > MAX_BYTES:
                raise NotAFrame
            end = start + HEAD_BYTES + length
            if len(held) < end:
                break
            number = int.from_bytes(held[start + 1 : start + 5], "big")
            found.append((held[start], number, bytes(held[start + HEAD_BYTES : end])))
            start = end
        del held[:start]
        return found


def pack(texts: list[bytes]) -> bytes:
    """Texts without NUL, as one."""
    return b"\0".join(texts)


def unpack(packed: bytes) -> list[bytes]:
    """The texts of `pack`."""
    return packed.split(b"\0")
