"""The log of a step whose files the keeper writes, put together without reading them: as `step_log.read_log` would."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import NamedTuple

from .kept_text import Extents, open_file
from .step_log import EDGE_BYTES, SEGMENT_HEAD, SEGMENT_TRIES, gap

_HEAD_BYTES = 40


class _Segment(NamedTuple):
    """Where in the output a segment of the end begins, and where in its file."""

    offset: int
    descriptor: int
    size: int
    mark: bytes

    def stands(self) -> bool:
        """Whether the keeper has not turned it over since."""
        return os.pread(self.descriptor, len(self.mark), 0) == self.mark


class LiveLog:
    """The three files of a raw log, open."""

    def __init__(self, head: int, tails: list[int]) -> None:
        self._head = head
        self._tails = tails
        self._segments: list[_Segment] = []

    def text(self) -> Extents:
        """The log as it is now; afterwards `stands` tells whether what was read of it is of one moment."""
        self._segments = sorted(filter(None, map(_segment, self._tails)))
        end = os.fstat(self._head).st_size
        pieces: list[tuple[int, int, int] | bytes] = [(self._head, 0, end)]
        for segment in self._segments:
            skipped = max(0, end - segment.offset)
            begin, size = _HEAD_BYTES + skipped, segment.size - skipped
            if segment.offset > end:
                # Half a line at a gap may hold half a secret, which nobody would find.
                lost = _end_whole(pieces)
                edge = os.pread(segment.descriptor, min(EDGE_BYTES, size), begin)
                cut = (edge.find(b"\n") + 1) or len(edge)
                begin, size = begin + cut, size - cut
                left = segment.offset - end + lost + cut
                pieces.append(gap(left, after_whole_line=_ends_line(pieces)))
            pieces.append((segment.descriptor, begin, size))
            end = max(end, segment.offset + segment.size)
        return Extents(*pieces)

    def stands(self) -> bool:
        """Whether nothing that `text` was made of has been written over since."""
        return all(segment.stands() for segment in self._segments)


@contextlib.contextmanager
def open_live_log(folder: int, name: str) -> Generator[LiveLog | None]:
    """A step's raw log; None where there is none (any more)."""
    with contextlib.ExitStack() as stack:
        head = stack.enter_context(open_file(folder, f"{name}.head"))
        tails = [stack.enter_context(open_file(folder, f"{name}.tail{n}")) for n in (0, 1)]
        yield None if head is None else LiveLog(head, [tail for tail in tails if tail is not None])


def _segment(tail: int) -> _Segment | None:
    for _ in range(SEGMENT_TRIES):
        written = os.pread(tail, _HEAD_BYTES, 0)
        if (head := SEGMENT_HEAD.fullmatch(written)) is None:
            return None
        begin, end = int(head[1]), int(head[2])
        size = min(end - begin, os.fstat(tail).st_size - _HEAD_BYTES)
        found = _Segment(begin, tail, max(0, size), head[1])
        if found.stands():
            return found
    return None


def _end_whole(pieces: list[tuple[int, int, int] | bytes]) -> int:
    """Take what is half a line off the end of the last piece, and return how many bytes that was."""
    last = pieces[-1]
    assert not isinstance(last, bytes)
    descriptor, begin, size = last
    edge = os.pread(descriptor, min(EDGE_BYTES, size), begin + max(0, size - EDGE_BYTES))
    lost = len(edge) - (edge.rfind(b"\n") + 1)
    pieces[-1] = (descriptor, begin, size - lost)
    return lost


def _ends_line(pieces: list[tuple[int, int, int] | bytes]) -> bool:
    last = pieces[-1]
    assert not isinstance(last, bytes)
    descriptor, begin, size = last
    return size > 0 and os.pread(descriptor, 1, begin + size - 1) == b"\n"
