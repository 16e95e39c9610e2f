"""A stream as lines of bounded length. Standard library only: the small process of every client has it too."""

from __future__ import annotations

MAX_LINE_BYTES = 4 * 1024 * 1024


class Lines:
    """Splits a stream into lines of at most `MAX_LINE_BYTES`."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """The complete lines without their ends; None stands for one that was too long."""
        found: list[bytes | None] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._end(data[start:end], found)
            start = end + 1
        self._hold(data[start:])
        return found

    def finish(self) -> list[bytes | None]:
        """The last line, when the stream ended without a newline."""
        found: list[bytes | None] = []
        if self._held or self._too_long:
            self._end(b"", found)
        return found

    def _hold(self, part: bytes) -> None:
        if len(self._held) + len(part) > MAX_LINE_BYTES:
            self._too_long = True
            self._held.clear()
        elif not self._too_long:
            self._held += part

    def _end(self, part: bytes, found: list[bytes | None]) -> None:
        self._hold(part)
        line, too_long = bytes(self._held).strip(b" \t\r"), self._too_long
        self._held.clear()
        self._too_long = False
        if too_long:
            found.append(None)
        elif line:
            found.append(line)
