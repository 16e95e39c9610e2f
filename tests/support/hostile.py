"""Process trees that do not want to die, and a way to count them that asks nobody but /proc.

Every program takes a marker as an argument, and so does all that it starts: `alive(marker)` finds
them by the argument vector, whatever they did to their session, parent, descriptors or environment.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PYTHON = (sys.executable, "-I", "-S")

_COMMON = """
import os, signal, sys, time
me, marker = sys.argv[0], sys.argv[1]
def exec_(code, env=None):
    argv = [sys.executable, "-I", "-S", "-c", code, marker]
    os.execve(sys.executable, argv, dict(os.environ) if env is None else env)
def child(code, env=None):
    pid = os.fork()
    if pid == 0:
        exec_(code, env)
    return pid
def daemon(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
        os._exit(0)
    os.wait()
def shed():
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, 64)
def clone(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid
def sleep():
    while True:
        time.sleep(1000)
SLEEP = "import time\\nwhile True: time.sleep(1000)"
DEAF = "import signal, time\\nfor n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)\\n" \\
       "while True: time.sleep(1000)"
def plain():
    for _ in range(3):
        clone(sleep)
def deaf():
    def work():
        for n in (1, 2, 3, 15):
            signal.signal(n, signal.SIG_IGN)
        sleep()
    clone(work)
def setsid_daemon():
    daemon(sleep)
def bare_daemon():
    def work():
        shed()
        exec_(SLEEP, {})
    daemon(work)
def tree(fans):
    if fans:
        for _ in range(fans[0]):
            clone(lambda: (tree(fans[1:]), sleep()))
def storm():
    def work():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            clone(lambda: time.sleep(0.2))
            time.sleep(0.005)
    clone(work)
def setsid_storm():
    def work():
        while True:
            time.sleep(0.003)
            if os.fork():
                os._exit(0)
            os.setsid()
    clone(work)
def stopped():
    pid = clone(sleep)
    os.kill(pid, signal.SIGSTOP)
"""

_SHAPES = {
    "three children": "plain()",
    "a child that ignores TERM": "deaf()",
    "a daemon in its own session": "setsid_daemon()",
    "a daemon without environment": "bare_daemon()",
    "a tree of 150": "tree((5, 5, 5))",
    "a fork storm": "storm()",
    "a session storm": "setsid_storm()",
    "a stopped child": "stopped()",
    "a mix of 48": (
        "plain(); deaf(); setsid_daemon(); bare_daemon(); storm(); setsid_storm(); stopped();"
        " tree((5, 6))"
    ),
}
SHAPES = tuple(_SHAPES)


def command(shape: str, marker: str, then: str = "sleep()") -> tuple[str, ...]:
    """The argv of a program that grows this shape, prints `grown`, and then does `then`."""
    code = f"{_COMMON}\n{_SHAPES[shape]}\nprint('grown', flush=True)\n{then}\n"
    return (*PYTHON, "-c", code, marker)


def python(code: str, marker: str) -> tuple[str, ...]:
    """The argv of a Python program of one process; it finds the helpers of the shapes defined."""
    return (*PYTHON, "-c", f"{_COMMON}\n{code}\n", marker)


def alive(marker: str) -> list[int]:
    """The processes that have the marker as an argument and are no zombies, by their number.

    Newcomers are looked at until there are none: a session storm is one process of 3 ms after the
    other, and would otherwise be overlooked now and then.
    """
    found: list[int] = []
    looked: set[int] = set()
    for _ in range(50):
        new = {int(name) for name in os.listdir("/proc") if name.isdigit()} - looked
        if not new:
            break
        looked |= new
        for pid in sorted(new, reverse=True):
            if marker.encode() in _read(Path(f"/proc/{pid}/cmdline")).split(b"\0"):
                state = _read(Path(f"/proc/{pid}/stat")).rpartition(b") ")[2][:1]
                if state not in (b"Z", b"X", b""):
                    found.append(pid)
    return found


def end(pids: Sequence[int]) -> None:
    """Kill what a failed test left; only ever numbers that `alive` just gave."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
