"""The files that the keeper of a step writes, and its log put together from them.

The beginning of the output is in one file. Its end is in two segments, each overwritten in turn; a segment begins with
a line that says where in the output it begins and ends, because behind its end is what it held before.
"""

from __future__ import annotations

import re
from pathlib import Path

EDGE_BYTES = 1 << 14
"""Most that is taken off on each side of a gap in a log, to go on with a whole line."""
SEGMENT_TRIES = 5
SEGMENT_HEAD = re.compile(rb"([0-9]{19}) ([0-9]{19})\n")


def log_paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Where the raw log of a step is kept: its beginning, and two segments of its end."""
    return folder / f"{name}.head", folder / f"{name}.tail0", folder / f"{name}.tail1"


def pids_path(folder: Path, name: str) -> Path:
    """Where the keeper lists the step's processes while it runs."""
    return folder / f"{name}.pids"


def read_log(folder: Path, name: str) -> bytes:
    """Assemble the log as far as it was kept: head, a line for each gap, tail.

    May be called while the step runs; b"" when there is no log.
    """
    first, *tails = log_paths(folder, name)
    head = read_part(first)
    segments = [segment for path in tails if (segment := _segment(path)) is not None]
    pieces, end = [head], len(head)
    for offset, data in sorted(segments):
        after = data[max(0, end - offset) :]
        if offset > end:
            # Half a line at a gap may hold half a secret, which nobody would find.
            before = pieces.pop()
            pieces.append(before[: max(before.rfind(b"\n") + 1, len(before) - EDGE_BYTES)])
            after = after[min((after.find(b"\n") + 1) or EDGE_BYTES, EDGE_BYTES) :]
            left = offset - end + len(before) - len(pieces[-1]) + len(data) - len(after)
            pieces.append(gap(left, after_whole_line=pieces[-1].endswith(b"\n")))
        pieces.append(after)
        end = max(end, offset + len(data))
    return b"".join(pieces)


def gap(size: int, *, after_whole_line: bool) -> bytes:
    """The line that stands in a log in place of `size` bytes."""
    end_of_line = "" if after_whole_line else "\n"
    return f"{end_of_line}[… {size} bytes left out …]\n".encode()


def _segment(path: Path) -> tuple[int, bytes] | None:
    """What a segment of the tail holds, and where in the log that begins; None when it is not (fully) one."""
    for _ in range(SEGMENT_TRIES):
        text = read_part(path)
        # Less was cut off by a kill, anything else is a step's own file.
        if (head := SEGMENT_HEAD.match(text)) is None:
            return None
        if read_part(path, head.end()).startswith(head[1]):
            begin, end = int(head[1]), int(head[2])
            return begin, text[head.end() : head.end() + end - begin]
        # The keeper has turned it over meanwhile: what was read may be of two places.
    return None


def read_part(path: Path, most: int = -1) -> bytes:
    """The first `most` bytes of a file, by default all of it; nothing where there is no file."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return b""
