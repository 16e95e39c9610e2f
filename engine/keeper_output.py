"""What a step prints: kept in bounded files, and passed on live as far as the worker keeps up.

Part of the keeper's program (see keeper.py): standard library only, quick to import.
"""

from __future__ import annotations

import fcntl
import os
import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 18
LIVE_BURST = LIVE_RATE = 1 << 22  # bytes at once, and a second: a worker has other steps too
SEGMENT_HEAD = b"%019d %019d\n"  # where in the log a segment begins and ends
FIONREAD = 0x541B if sys.platform == "linux" else 0x4004667F


def create(path: str) -> int:
    """Make an empty file of our own, mode 0600, never through a symbolic link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def pipe_size(fd: int, wanted: int = 0) -> int:
    """Bytes a pipe holds, after asking for `wanted`; the system may refuse to make it larger."""
    if sys.platform != "linux":
        return 65536
    try:
        if wanted:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, wanted)
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:
        return 65536


class Output:
    """What the step prints: kept in bounded files, passed on as far as the worker keeps up."""

    def __init__(self, source: int, forward: int, plan: dict[str, Any]) -> None:
        self.source = source
        self.forward = forward
        self.head_path: str = plan["head_path"]
        self.tails: list[str] = plan["tail_paths"]
        self.tail_bytes = max(1, plan["tail_bytes"] // 2)
        self.buffer = bytearray(READ_BYTES)
        self.view = memoryview(self.buffer)
        self.segments: list[int] = []
        self.bytes = self.dropped = self.turns = self.began = 0
        self.gap = self.midline = False
        self.allowance, self.allowed_at = float(LIVE_BURST), monotonic()
        self.half_pipe = pipe_size(forward) // 2
        self.log_error: str | None = None
        self.file = -1
        self.room: int = plan["head_bytes"]
        try:
            for path in self.tails:
                if os.path.lexists(path):
                    os.unlink(path)
            self.file = create(self.head_path)
        except OSError as error:
            self.give_up_log(error)

    def give_up_log(self, error: OSError) -> None:
        """Stop the log: a full disk must not end or hang a build; `done` says why."""
        self.log_error = f"{error.filename or self.head_path}: {error.strerror}"

    def pump(self) -> int:
        """Read once; the number of bytes, 0 at end of file, -1 when there is nothing now."""
        try:
            size = os.readv(self.source, [self.buffer])
        except BlockingIOError:
            return -1
        data = self.view[:size]
        if self.log_error is None:
            try:
                self.keep(data)
            except OSError as error:
                self.give_up_log(error)
        self.bytes += size
        if self.forward >= 0 and size:
            try:
                self.pass_on(data)
            except OSError:
                self.close_forward()
        return size

    def keep(self, data: memoryview) -> None:
        """Write to the head, then to two tail segments in turn."""
        offset = self.bytes
        while data:
            if self.room <= 0:
                self.turn_over(offset)
            size = os.write(self.file, data[: self.room])
            self.room -= size
            offset += size
            data = data[size:]
        self.mark(offset)

    def turn_over(self, offset: int) -> None:
        """Go on in the other segment, over what is oldest: to empty a file takes far longer than to write over it."""
        self.mark(offset)
        if self.turns == 0:
            os.close(self.file)
        which = self.turns % 2
        if self.turns < 2:
            self.segments.append(create(self.tails[which]))
        self.turns += 1
        self.file, self.began, self.room = self.segments[which], offset, self.tail_bytes
        self.mark(offset)  # from now on nothing of what was there counts
        os.lseek(self.file, len(SEGMENT_HEAD % (0, 0)), os.SEEK_SET)

    def mark(self, end: int) -> None:
        """Say in the segment how far it goes: behind that is what it held before."""
        if self.turns:
            os.pwrite(self.file, SEGMENT_HEAD % (self.began, end), 0)

    def pass_on(self, data: memoryview) -> None:
        """Give the worker what fits and what it is allowed; after a gap go on at the start of a line, half empty."""
        now = monotonic()
        earned = (now - self.allowed_at) * LIVE_RATE
        self.allowance, self.allowed_at = min(LIVE_BURST, self.allowance + earned), now
        if self.gap:
            cut = self.next_start(data)
            if cut is None:
                self.dropped += len(data)
                return
            self.dropped += cut
            data = data[cut:]
            self.gap = False
            if self.midline:
                os.write(
                    self.forward, b"\x18\n"
                )  # CAN: the reader is to distrust what it has of the line
                self.midline = False
        try:
            size = os.write(self.forward, data[: max(0, int(self.allowance))])
        except BlockingIOError:
            size = 0
        self.allowance -= size
        if size:
            self.midline = data[size - 1] != 10
        if size < len(data):
            self.dropped += len(data) - size
            self.gap = True

    def next_start(self, data: memoryview) -> int | None:
        """Where in `data` to go on after a gap; None while the worker has enough, or no line begins there."""
        if self.allowance < self.half_pipe:
            return None
        waiting = int.from_bytes(fcntl.ioctl(self.forward, FIONREAD, b"\0" * 4), sys.byteorder)
        if waiting > self.half_pipe:
            return None
        return self.buffer.find(b"\n", 0, len(data)) + 1 or None

    def finish(self) -> None:
        """After everything is dead: what is still in the pipe (never more than a pipe holds)."""
        end = self.bytes + 2 * PIPE_BYTES
        while self.bytes < end and self.pump() > 0:
            pass
        self.close_forward()

    def close_forward(self) -> None:
        """Let the worker see the end of the live output."""
        if self.forward >= 0:
            os.close(self.forward)
            self.forward = -1
