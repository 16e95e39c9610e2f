"""48 processes that do not want to die: `python -I -S hostile.py MARKER FIFO`, then TERM or KILL.

The leader, and 47 others: 12 that ignore every signal they can, 12 daemons in sessions of their own whose
parents have gone, 11 of those that also closed everything and emptied their environment, and four lines of three
descendants whose middle ones are stopped. All bear the marker as an argument.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

COUNT = 48
SLEEP = "import time\nwhile True: time.sleep(1000)"


def child(work: Callable[[], object]) -> int:
    """The number of a child that does the work and ends."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def sleep() -> NoReturn:
    """Live on."""
    while True:
        time.sleep(1000)


def deaf() -> NoReturn:
    """Live on, and ignore every signal that can be ignored."""
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                continue  # the two that the C library keeps
    sleep()


def daemon(work: Callable[[], object]) -> None:
    """Leave a process in a session of its own, whose parent has gone."""

    def middle() -> None:
        os.setsid()
        child(work)

    os.waitpid(child(middle), 0)


def bare() -> NoReturn:
    """Live on with nothing by which one could be found: no files, no variables, no folder."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.closerange(3, 64)
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", SLEEP, sys.argv[1]], {})


def line(length: int) -> NoReturn:
    """Live on above so many descendants; the last but one is stopped."""
    if length:
        child(lambda: line(length - 1))
    if length == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    sleep()


def main() -> None:
    """Make all of them, say so by opening the FIFO, and live on."""
    for _ in range(12):
        child(deaf)
    for _ in range(12):
        daemon(sleep)
    for _ in range(11):
        daemon(bare)
    for _ in range(4):
        child(lambda: line(2))
    with open(sys.argv[2], "wb"):
        pass
    sleep()


if __name__ == "__main__":
    main()
