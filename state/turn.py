"""Writers of one store take turns, in the order in which they came."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Self
from weakref import WeakSet

_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_05, 0.002
"""Seconds."""


class TurnTimeout(Exception):
    """Nobody gave the turn back in time."""


class WriteTurn:
    """A lock that the kernel hands on to who has waited longest, also between processes.

    SQLite's own writers look again after ever longer pauses, so under load who has waited longest gets its turn
    last; this is for fairness. And whoever has the turn is the only one who commits or checkpoints, which is
    what the WAL-reset bug of SQLite before 3.51.3 needs two of. A process that dies gives its turn back.
    """

    def __init__(self, path: Path) -> None:
        """One thread at a time may use it: another one needs another object."""
        self._path = path
        self._kept = -1
        self._held = -1
        self._seconds = 0.0
        _turns.add(self)

    def taken(self, seconds: float) -> Self:
        """Have the turn for a `with` block; blocks the thread. Raises `TurnTimeout` after `seconds`, and `OSError`."""
        self._seconds = seconds
        return self

    def __enter__(self) -> None:
        """See `taken`."""
        held = self._open_kept()
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = self._wait(held, self._seconds)
        self._held = held

    def _wait(self, kept: int, seconds: float) -> int:
        return _Waiter(self._path).wait(seconds)

    def __exit__(self, *_: object) -> None:
        """See `taken`."""
        held, self._held = self._held, -1
        # By its name and not by closing: a child that is just being started may have a copy.
        fcntl.flock(held, fcntl.LOCK_UN)
        if held != self._kept:
            os.close(held)

    def close(self) -> None:
        """Keep nothing open between turns. The next turn opens the file again."""
        kept, self._kept = self._kept, -1
        if kept >= 0:
            os.close(kept)

    def _open_kept(self) -> int:
        if self._kept >= 0 and os.fstat(self._kept).st_nlink == 0:
            self.close()  # somebody deleted the file: the others lock a new one
        if self._kept < 0:
            self._kept = _open(self._path)
        return self._kept


class BriefTurn(WriteTurn):
    """A turn that everybody gives back within a fraction of a millisecond, unless he was stopped.

    Not in the order in which they came, which would take a thread for each who has to wait.
    """

    def _wait(self, kept: int, seconds: float) -> int:
        until = time.monotonic() + seconds
        pause = _FIRST_PAUSE
        while True:
            time.sleep(pause)
            try:
                fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TurnTimeout from None
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return kept


class _Waiter:
    """Waits in line on a thread of its own, because a wait for a lock in the kernel has no time limit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decided = threading.Lock()
        self._over = threading.Event()
        self._given_up = False
        self._held = -1
        self._error: OSError | None = None

    def wait(self, seconds: float) -> int:
        """The file that holds the lock."""
        threading.Thread(target=self._stand_in_line, name="bilt-turn", daemon=True).start()
        self._over.wait(seconds)
        with self._decided:
            self._given_up = True
            if self._error is not None:
                raise self._error
            if self._held < 0:
                raise TurnTimeout
            return self._held

    def _stand_in_line(self) -> None:
        held = -1
        try:
            held = _open(self._path)
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        with self._decided:
            if self._given_up or self._error is not None:
                if held >= 0:
                    os.close(held)
            else:
                self._held = held
        self._over.set()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


_turns: WeakSet[WriteTurn] = WeakSet()


def _close_all() -> None:
    for turn in list(_turns):
        turn.close()


# A lock is everybody's who has a copy of what was opened. So that a process that dies gives its turn back
# although a child that it forked lives on, the child closes its copy.
os.register_at_fork(after_in_child=_close_all)
