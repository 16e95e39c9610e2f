"""The output of a step, from bytes to messages (CONTRACT section 5).

    LineReader      bytes -> lines that are safe to show
    parse_command   a line like `::progress 40::Bundling` -> Progress or Notice
    Pieces          lines -> messages of at most 4 KB

`clean` and `Redactor`, which make text safe, are in `safe_text`.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

from .safe_text import MAX_FORM, PRIVATE_KEY_BEGIN, REDACTED, Redactor, clean

MAX_LINE_CHARS = 4096
"""Longest line, in characters, with the mark that says how much was cut."""
MAX_PIECE_BYTES = 4096
"""Longest message, in bytes of UTF-8."""

_KEPT_CHARS = 8192
"""What is kept of a line while it is read. With the last frame that was complete, and at four
bytes a character, that is 64 KiB."""
_MARGIN = MAX_FORM
"""Taken off the end of a line that did not fit: what stands there may be the first part of a
secret whose rest was dropped."""

_FRAME_END = re.compile(r"[\r\x1b\x9b](?:(?<=\r)|(?<=\x1b)\[[01]?G|(?<=\x9b)[01]?G)")
"""Back to the start of the line; npm and yarn write `ESC[1G` where others write CR."""
_FRAME_END_PART = re.compile(r"(?:\x1b(?:\[[01]?)?|\x9b[01]?)\Z")

_CUT = "\x18"
"""CAN at the end of a line: the keeper had to leave out the rest of it."""

_KEY_PART = re.compile(r"[A-Za-z0-9+/=]{16,}|\A\s*[A-Za-z0-9+/=]+\s*\Z")
_KEY_PATIENCE = 8
"""Lines without a part of a private key after which it counts as over."""


class LineReader:
    r"""Makes lines that are safe to show of the bytes that a step writes.

    Decodes UTF-8 (with U+FFFD for what is not), takes `\r\n` for a newline, keeps of a line that
    was redrawn the last frame that shows something, cleans, redacts and bounds. Where the reads
    happen to end makes no difference to the lines.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._frame = ""  # what is kept of the frame that is being read
        self._lost = 0  # characters of it that were not kept
        self._part = ""  # the beginning of what may become a _FRAME_END
        self._shown = ("", 0)  # the last frame of the line that showed something, cleaned; lost
        self._frames = False  # whether the line has a frame that is complete
        self._empty = True  # nothing of the line was read
        self._key_lines = 0  # lines to wait for more of a private key

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes, without their newlines."""
        return self.read(data).split("\n")[:-1]

    def read(self, data: bytes) -> str:
        """Return the lines that `data` completes, each with its newline."""
        return self._read(data, None)[0]

    def skim(self, data: bytes, last: int) -> tuple[str, int]:
        """As `read`, for one who has read enough: lines may be left out, and how many were is told.

        The last `last` lines are not, nor those that a command is among. It costs a fraction of `read`.
        """
        return self._read(data, last)

    def finish(self, cut: bool = False) -> list[str]:
        """Return the last line if it had no newline, `cut` if more of it was lost. The reader is then as new."""
        self._take(self._decoder.decode(b"", final=True))
        if cut and not self._empty:
            self._take(_CUT)
        self._decoder.reset()
        lines = [] if self._empty else [self._end()]
        self._key_lines = 0
        return lines

    def _read(self, data: bytes, last: int | None) -> tuple[str, int]:
        text = self._decoder.decode(data)
        head, newline, rest = text.partition("\n")
        self._take(head)
        if not newline:
            return "", 0
        first = self._end() + "\n"
        end = rest.rfind("\n") + 1
        lines, left_out = self._whole_lines(rest[:end], last) if end else ("", 0)
        self._take(rest[end:])
        return first + lines, left_out

    def _whole_lines(self, block: str, last: int | None) -> tuple[str, int]:
        """Return what is shown of `block`, which begins where a line begins and ends where one ends."""
        if "\r" in block:
            block = block.replace("\r\n", "\n")
        if (
            not self._key_lines
            and _CUT not in block
            and not _has_line_over(block, _KEPT_CHARS)
            and not (_may_move(block) and _FRAME_END.search(block))
            and "PRIVATE KEY" not in (text := clean(block))
        ):
            # Nothing here goes over the end of a line: one look at all of it will do.
            start = 0
            if last is not None and not has_command(text):
                start = _start_of_last(text, last)
            shown = self._redactor.redact_lines(text[start:])
            if _has_line_over(shown, MAX_LINE_CHARS):
                shown = "".join(_bounded(line, 0) + "\n" for line in shown.split("\n")[:-1])
            return shown, text.count("\n", 0, start)
        ended: list[str] = []
        for line in block.split("\n")[:-1]:
            self._take(line)
            ended.append(self._end() + "\n")
        return "".join(ended), 0

    def _take(self, text: str) -> None:
        """Add `text`, which has no newline, to the line."""
        if not text:
            return
        self._empty = False
        if self._part or _may_move(text):
            text = self._part + text
            self._part = ""
            first, *others = _FRAME_END.split(text)
            if others:
                self._keep(first)
                self._end_frame()
                *whole, first = others
                for frame in reversed(whole):  # only the last that shows something will be seen
                    self._keep(frame)
                    if self._end_frame():
                        break
            text = first
            if part := _FRAME_END_PART.search(text, max(0, len(text) - 3)):
                self._part = part[0]
                text = text[: part.start()]
        self._keep(text)

    def _keep(self, text: str) -> None:
        room = _KEPT_CHARS - len(self._frame)
        self._frame += text[:room]
        self._lost += max(0, len(text) - room)

    def _end_frame(self) -> bool:
        """End the frame and return whether it shows something."""
        self._lost += self._frame.endswith(_CUT)
        text = clean(self._frame)
        shows = self._lost > 0 or bool(text.strip())
        if shows or not self._frames:
            self._shown = (text, self._lost)
        self._frame, self._lost, self._frames = "", 0, True
        return shows

    def _end(self) -> str:
        """End the line and return it."""
        self._keep(self._part)  # `clean` takes it off, but it counts
        self._end_frame()
        line = self._made_safe(*self._shown)
        self._part, self._frames, self._empty = "", False, True
        return line

    def _made_safe(self, text: str, lost: int) -> str:
        if PRIVATE_KEY_BEGIN.search(text):
            self._key_lines = _KEY_PATIENCE
        elif self._key_lines:
            if _KEY_PART.search(text):
                self._key_lines = _KEY_PATIENCE
                text = _KEY_PART.sub(REDACTED, text)
            else:
                self._key_lines -= 1
        if self._key_lines and "-----END " in text:
            self._key_lines = 0
        text = self._redactor.redact(text)
        kept = text[:-_MARGIN] if lost else text
        return _bounded(kept, lost + len(text) - len(kept))


def _has_line_over(text: str, most: int) -> bool:
    """Whether a line of `text`, which ends with a newline, is longer than `most` characters."""
    start = 0
    while len(text) - start > most + 1:
        end = text.rfind("\n", start, start + most + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def _start_of_last(text: str, lines: int) -> int:
    """Where the last `lines` lines of `text` begin, which ends with a newline."""
    start = len(text)
    for _ in range(lines):
        start = text.rfind("\n", 0, max(0, start - 1)) + 1
        if start == 0:
            break
    return start


def _may_move(text: str) -> bool:
    return "\r" in text or "\x1b" in text or "\x9b" in text


def _bounded(text: str, lost: int) -> str:
    """Return `text` and, if characters are missing, a mark, in `MAX_LINE_CHARS` together."""
    if not lost and len(text) <= MAX_LINE_CHARS:
        return text
    room = MAX_LINE_CHARS - len(f" […{lost + len(text)} characters cut]")
    kept = text[:room]
    return f"{kept} […{lost + len(text) - len(kept)} characters cut]"


@dataclass(frozen=True)
class Progress:
    """How far a step is: `percent` 0 to 100 or None, and one line of text, possibly empty."""

    percent: int | None
    text: str


@dataclass(frozen=True)
class Notice:
    """Something that a step wants to be read: a message of its own.

    `variant` is the message's (CONTRACT "Message", which has no warning); `level` is the step's.
    """

    variant: Literal["info", "error"]
    level: Literal["notice", "warning", "error"]
    text: str


_COMMAND_START = re.compile(r"^[^\S\n]*::", re.MULTILINE)
_PERCENT = re.compile(r"100|[0-9]{1,2}")
_PROPERTIES = re.compile(r"(?:[A-Za-z]+=[^,]*+(?:,|\Z))*+")


def has_command(text: str) -> bool:
    """Whether a line of `text` may be a command: begins as `parse_command` wants it."""
    return "::" in text and _COMMAND_START.search(text) is not None


def parse_command(line: str) -> Progress | Notice | None:
    """Return what a line such as `::progress 40::Bundling` means; None for a line of the log.

    `::progress::text`, `::notice::text`, `::warning file=a,line=1::text`, `::error::text` as on
    GitHub Actions (properties are read over; `%0A`, `%0D` and `%25` are decoded). `line` is
    expected to come from a LineReader; one that is malformed is a line of the log.
    """
    line = line.lstrip()
    if not line.startswith("::"):
        return None
    head, found, data = line[2:].partition("::")
    name, _, properties = head.partition(" ")
    text = _decoded(data)
    if not found:
        return None
    match name.lower(), properties.strip():
        case "progress", "":
            return Progress(None, " ".join(text.split())) if text else None
        case "progress", percent if _PERCENT.fullmatch(percent):
            return Progress(int(percent), " ".join(text.split()))
        case ("notice" | "warning" | "error") as level, rest if _PROPERTIES.fullmatch(rest):
            if not text:
                return None
            if level == "warning":
                return Notice("info", level, f"Warning: {text}")
            return Notice("error" if level == "error" else "info", level, text)
        case _:
            return None


def _decoded(data: str) -> str:
    # CR becomes a newline and is not dropped: what stands around it must not grow together into
    # something that was never redacted. %25 comes last, so that %250A stays the text "%0A".
    text = data.replace("%0D%0A", "\n").replace("%0D", "\n").replace("%0A", "\n")
    return clean(text.replace("%25", "%")).strip()


class Pieces:
    r"""Joins lines to pieces of at most `MAX_PIECE_BYTES`, for messages.

    Lines are joined with `\n`; one that does not fit is split between characters. A piece that
    would show nothing is not made.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._bytes = 0  # of the lines, each with a newline

    def fill(self, text: str) -> int:
        r"""Add as many lines of `text` as fit, and return how many characters that were.

        `text` is ASCII; each of its lines ends with `\n`, and none is longer than a piece.
        """
        end = text.rfind("\n", 0, max(0, MAX_PIECE_BYTES + 1 - self._bytes)) + 1
        if end:
            self._lines.append(text[: end - 1])
            self._bytes += end
        return end

    def add(self, line: str) -> list[str]:
        """Add a line and return the pieces that are full."""
        full: list[str] = []
        for part in _parts(line):
            size = len(part.encode()) + 1
            if self._bytes + size > MAX_PIECE_BYTES + 1 and (piece := self.flush()) is not None:
                full.append(piece)
            self._lines.append(part)
            self._bytes += size
        return full

    def flush(self) -> str | None:
        """Return what was added and not returned yet, or None."""
        piece = "\n".join(self._lines)
        self._lines.clear()
        self._bytes = 0
        return piece if piece.strip() else None


def _parts(line: str) -> list[str]:
    """Return `line` in parts of at most `MAX_PIECE_BYTES`."""
    if len(line) * 4 <= MAX_PIECE_BYTES:
        return [line]
    data = line.encode()
    parts: list[str] = []
    while len(data) > MAX_PIECE_BYTES:
        part = data[:MAX_PIECE_BYTES].decode("utf-8", "ignore")  # less the character that is cut
        parts.append(part)
        data = data[len(part.encode()) :]
    return [*parts, data.decode()]
