"""Reading ranges of lines from files that steps could write to, however large, in little memory.

open_folder, open_file   descriptors, never through a symbolic link
Extents                  pieces of files and bytes, read as one text by position
read_lines               a range of its lines, safe to show
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

from bilt_mcp.state import KeptText, LineRange

from .output import LineReader
from .safe_text import Redactor

CHUNK_BYTES = 1 << 16
LEAD_BYTES = 1 << 16
"""How far before a range reading begins: a private key is told by its first line."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextlib.contextmanager
def open_folder(path: Path) -> Generator[int | None]:
    """A folder's descriptor; None where there is none, or a link in its place."""
    with _closing(_open(path, _FLAGS | os.O_DIRECTORY, None)) as folder:
        yield folder


@contextlib.contextmanager
def open_file(folder: int, *parts: bytes | str) -> Generator[int | None]:
    """The descriptor of a regular file below a folder; None where there is none, or anything else in its place."""
    with contextlib.ExitStack() as stack:
        inner: int | None = folder
        for part in parts[:-1]:
            if inner is not None:
                inner = stack.enter_context(_closing(_open(part, _FLAGS | os.O_DIRECTORY, inner)))
        found = (
            None
            if inner is None
            else stack.enter_context(_closing(_open(parts[-1], _FLAGS, inner)))
        )
        if found is not None and not stat.S_ISREG(os.fstat(found).st_mode):
            found = None  # never read from a FIFO or a device
        yield found


def _open(name: Path | bytes | str, flags: int, folder: int | None) -> int | None:
    try:
        return os.open(name, flags, dir_fd=folder)
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _closing(descriptor: int | None) -> Generator[int | None]:
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


class Extents:
    """Pieces of open files, and bytes, as one text."""

    def __init__(self, *pieces: tuple[int, int, int] | bytes) -> None:
        """A piece of a file is its descriptor, where it begins, and how long it is."""
        self._pieces = pieces
        self._sizes = [len(p) if isinstance(p, bytes) else max(0, p[2]) for p in pieces]
        self.size = sum(self._sizes)

    @classmethod
    def whole(cls, descriptor: int) -> Extents:
        """All that a file holds now."""
        return cls((descriptor, 0, os.fstat(descriptor).st_size))

    def read(self, at: int, size: int) -> bytes:
        """The `size` bytes from `at` on; fewer at the end, or where a file has become shorter."""
        found = b""
        for piece, length in zip(self._pieces, self._sizes, strict=True):
            if at < length and size > 0:
                most = min(size, length - at)
                part = _part(piece, at, most)
                found += part
                at, size = at + len(part), size - most
                if len(part) < most:
                    break
            at -= length
        return found

    def chunks(self, at: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `at` on, in pieces."""
        end = self.size if end is None else end
        while at < end and (data := self.read(at, min(CHUNK_BYTES, end - at))):
            yield data
            at += len(data)


def _part(piece: tuple[int, int, int] | bytes, at: int, size: int) -> bytes:
    if isinstance(piece, bytes):
        return piece[at : at + size]
    return os.pread(piece[0], size, piece[1] + at)


class _Lines:
    """Where the lines of a text begin."""

    def __init__(self, text: Extents, *, growing: bool) -> None:
        self._text = text
        self._before = [0]  # lines that end before each chunk
        last = b"\n"
        for data in text.chunks():
            self._before.append(self._before[-1] + data.count(b"\n"))
            last = data[-1:]
        # What may go on is no line yet: half of it may be half a secret, too.
        self.total = self._before[-1] + (last != b"\n" and not growing)

    def start(self, number: int) -> int:
        """The position of line `number`, from 1, which may be one more than there are."""
        if number <= 1:
            return 0
        ends = number - 1  # so many lines end before it
        for chunk, before in enumerate(self._before[1:]):
            if before >= ends:
                at = chunk * CHUNK_BYTES
                return at + _after(self._text.read(at, CHUNK_BYTES), ends - self._before[chunk])
        return self._text.size


def _after(data: bytes, newlines: int) -> int:
    at = 0
    for _ in range(newlines):
        if (end := data.find(b"\n", at)) < 0:
            return len(data)  # it has become shorter meanwhile
        at = end + 1
    return at


def read_lines(
    text: Extents, redactor: Redactor, wanted: LineRange, *, growing: bool = False
) -> KeptText:
    """The wanted lines, as `LineReader` makes them safe; as many as `wanted.max_chars` allows, but one at least.

    Of a text that is `growing` only what is a whole line counts.
    """
    lines = _Lines(text, growing=growing)
    first = wanted.first if wanted.first > 0 else max(1, lines.total + wanted.first + 1)
    first = min(first, lines.total + 1)
    start = lines.start(first)
    lead, skipped = _lead(text, start)
    most = min(wanted.lines, lines.total - first + 1)
    shown: list[str] = []
    room = wanted.max_chars
    for line in _safe_lines(text, redactor, lead):
        if skipped:
            skipped -= 1
            continue
        room -= len(line) + 1
        if len(shown) >= most or (room < 0 and shown):
            break
        shown.append(f"{line}\n")
    return KeptText("".join(shown), first, first + len(shown) - 1, lines.total)


def _lead(text: Extents, start: int) -> tuple[int, int]:
    """Where to begin to read, at the start of a line, and how many lines that is before `start`."""
    at = max(0, start - LEAD_BYTES)
    before = text.read(at, start - at)
    if at:
        cut = before.find(b"\n") + 1
        at, before = at + cut, before[cut:]
    return at, before.count(b"\n")


def _safe_lines(text: Extents, redactor: Redactor, at: int) -> Iterator[str]:
    reader = LineReader(redactor)
    for data in text.chunks(at):
        yield from reader.feed(data)
    yield from reader.finish()


def tells(text: Extents, redactor: Redactor) -> bool:
    """Whether a declared secret's value stands in the text, as it is or in one of the usual encodings."""
    kept = b""
    for data in text.chunks():
        kept += data
        if redactor.finds_in(kept):
            return True
        kept = kept[-redactor.longest :]
    return False
