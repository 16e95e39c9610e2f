"""What a running step says, as messages: lines in bounded pieces, in bounded number, and its commands."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from bilt_mcp.state import Note

from .output import (
    MAX_PIECE_BYTES,
    LineReader,
    Notice,
    Pieces,
    Progress,
    has_command,
    parse_command,
)
from .safe_text import Redactor

TAIL_LINES = 40
"""How many of the last lines are said at the end, when the middle was left out."""
LAST_LINES, LAST_CHARACTERS = 20, 2000
"""At most so much of the end is told together with a failure."""
MAX_NOTICES = 100
"""Notices, warnings and errors of one step that become messages of their own."""


class StepOutput:
    """Collects what a step writes until it is taken. Does no I/O."""

    def __init__(self, step: str, secrets: Iterable[str], max_messages: int) -> None:
        self._step = step
        self._redactor = Redactor(secrets)
        self._reader = LineReader(self._redactor)
        self._pieces = Pieces()
        self._left = max_messages
        self._notices_left = MAX_NOTICES
        self._notes: list[Note] = []
        self._tail: list[str] = []
        self._newest: deque[str] = deque(maxlen=LAST_LINES)
        self._omitted_lines = 0
        self._dropped_bytes = 0
        self.percent: int | None = None
        self.progress: str | None = None
        self.wrote = False

    def feed(self, data: bytes, dropped: int) -> None:
        """Take what the step wrote, and how many bytes before it went to the log file only."""
        self.wrote = self.wrote or bool(data) or bool(dropped)
        if dropped:
            self._dropped_bytes += dropped
        if self._left > 0:
            self._lines(self._reader.read(data))
        else:
            text, left_out = self._reader.skim(data, TAIL_LINES)
            self._omitted_lines += left_out
            self._lines(text)

    def take(self) -> tuple[list[Note], int | None, str | None, bool]:
        """The messages since the last call, the newest percent and progress text if new, whether it wrote."""
        self._flush()
        taken = (self._notes, self.percent, self.progress, self.wrote)
        self._notes, self.percent, self.progress, self.wrote = [], None, None, False
        return taken

    @property
    def incomplete(self) -> bool:
        """Whether some output came to the log file only."""
        return self._dropped_bytes > 0

    @property
    def last_lines(self) -> str:
        """The last lines of what was told, in order."""
        told = "\n".join("\n".join(self._newest).split("\n")[-LAST_LINES:])
        if len(told) <= LAST_CHARACTERS:
            return told
        end = told[-LAST_CHARACTERS:]
        return end[end.find("\n") + 1 :]

    def finish(self, end_of_log: bytes = b"") -> list[Note]:
        """The last messages; when some output was left out, its last lines (those of `end_of_log`) are among them."""
        for line in self._reader.finish(cut=self.incomplete):
            self._line(line)
        if self.incomplete and end_of_log:
            reader = LineReader(self._redactor)
            self._tail = [*reader.feed(end_of_log), *reader.finish()][-TAIL_LINES:]
        self._flush()
        notes, self._notes = self._notes, []
        if self._omitted_lines or self._dropped_bytes:
            left_out = f"[… {self._omitted_lines} lines"
            if self._dropped_bytes:
                left_out += f" and {self._dropped_bytes} bytes"
            left_out += " left out here; the step's log file has its beginning and its end. The last lines:]"
            notes.append(Note(left_out, "log", self._step))
            for line in self._tail:
                notes.extend(self._note(piece) for piece in self._pieces.add(line))
            last = self._pieces.flush()
            if last is not None:
                notes.append(self._note(last))
        return notes

    def _lines(self, text: str) -> None:
        if text.isascii() and not has_command(text):
            text = text[self._whole_lines(text) :]
        for line in text.split("\n")[:-1]:
            self._line(line)

    def _whole_lines(self, text: str) -> int:
        """What `_line` does for each line of `text`, at a fraction of the cost; how many characters were kept."""
        start = 0
        while self._left > 0 and start < len(text):
            start += self._pieces.fill(text[start : start + MAX_PIECE_BYTES + 1])
            if start < len(text):
                # What does not fit any more begins the next piece, also after the last that counts.
                end = text.index("\n", start) + 1
                for piece in self._pieces.add(text[start : end - 1]):
                    self._keep(piece)
                start = end
        return start

    def _line(self, line: str) -> None:
        command = parse_command(line)
        if isinstance(command, Progress):
            self.percent = self.percent if command.percent is None else command.percent
            self.progress = command.text or self.progress
            return
        if isinstance(command, Notice) and self._notices_left > 0:
            self._notices_left -= 1
            self._flush()
            text = command.text.encode()[:MAX_PIECE_BYTES].decode("utf-8", "ignore")
            self._notes.append(Note(text, command.variant, self._step))
            self._newest.append(text)
            return
        if self._left <= 0:
            self._omitted_lines += 1
            self._tail.append(line)
            del self._tail[:-TAIL_LINES]
            return
        for piece in self._pieces.add(line):
            self._keep(piece)

    def _flush(self) -> None:
        piece = self._pieces.flush()
        if piece is not None:
            self._keep(piece)

    def _keep(self, piece: str) -> None:
        self._left -= 1
        self._notes.append(self._note(piece))

    def _note(self, piece: str) -> Note:
        self._newest.append(piece)
        return Note(piece, "log", self._step)
