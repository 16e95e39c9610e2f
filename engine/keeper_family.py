"""What a keeper knows of the processes around it: reading /proc, walking a family, safe signals.

Part of the keeper's program (see keeper.py): standard library only, quick to import. A process is
told from a later one with the same number by its start time in kernel ticks since boot.
"""

# ruff: noqa: SIM105 - contextlib would cost every step several milliseconds

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    import signal
else:
    import _signal as signal  # `signal` itself costs 8 ms at import, for its enums

LINUX = sys.platform == "linux"
HAS_CHILDREN_FILE = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
SET_PDEATHSIG, SET_NAME, SET_CHILD_SUBREAPER = 1, 15, 36

_library: list[ctypes.CDLL] = []


def prctl(option: int, value: int | bytes) -> bool:
    """One prctl of Linux; False where there is none or it was refused."""
    if not LINUX:
        return False
    import ctypes

    if not _library:
        _library.append(ctypes.CDLL(None))  # kept: the child of a start has no time to open it
    word = ctypes.c_ulong
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else word(value)
    return bool(_library[0].prctl(option, argument, word(0), word(0), word(0)) == 0)


def boot_id() -> str:
    """Name this boot as the kernel does; "" where it does not."""
    return read_file("/proc/sys/kernel/random/boot_id").decode().strip()


def start_ticks_of(pid: int) -> int:
    """Start time of a process that certainly exists; 0 where the system does not tell."""
    stat = stat_of(pid)
    return stat[1] if stat else 0


def read_file(path: str) -> bytes:
    """All of a small file; b"" when it cannot be read (its process is gone)."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    pieces: list[bytes] = []
    try:
        while piece := os.read(fd, 65536):
            pieces.append(piece)
    except OSError:
        pass
    finally:
        os.close(fd)
    return b"".join(pieces)


def stat_of(pid: int) -> tuple[int, int, bool] | None:
    """(parent, start ticks, alive) of a process, None when there is none; a zombie is not alive."""
    text = read_file(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    alive = fields[0] not in b"ZX"
    if not alive:
        # The first thread of a program may end before the others: no zombie, however it looks.
        try:
            alive = len(os.listdir(f"/proc/{pid}/task")) > 1
        except OSError:
            pass
    return int(fields[1]), int(fields[19]), alive


def children_by_parent() -> dict[int, list[int]]:
    """Every process by its parent, from a scan of /proc: for kernels without `children` files."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if LINUX else ():
        if name.isdigit() and (stat := stat_of(int(name))):
            found.setdefault(stat[0], []).append(int(name))
    return found


def children_of(pid: int, scan: dict[int, list[int]] | None = None) -> list[int]:
    """List the children of a process, zombies too; `scan` replaces the kernel's list."""
    if scan is not None or not HAS_CHILDREN_FILE:
        return (children_by_parent() if scan is None else scan).get(pid, [])
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, read_file(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        pass
    return found


def walk(root: int) -> dict[int, int]:
    """Start ticks of every live descendant of an existing process, by pid."""
    found: dict[int, int] = {}
    scan = None if HAS_CHILDREN_FILE else children_by_parent()
    todo = [(root, start_ticks_of(root))]
    while todo:
        parent, ticks = todo.pop()
        young: list[tuple[int, int, bool]] = []
        for pid in children_of(parent, scan):
            stat = stat_of(pid)
            if stat and stat[0] == parent and pid not in found:
                young.append((pid, stat[1], stat[2]))
        if not young:
            continue
        again = stat_of(parent)
        if again is None or again[1] != ticks:
            continue  # the parent's number may have passed on while we looked: not our family
        for pid, born, alive in young:
            todo.append((pid, born))
            if alive:
                found[pid] = born
    return found


def kill_child(pid: int) -> None:
    """KILL an unreaped child of this process by its number, which nobody else can have."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass  # a set-user-id program: its own children can still be reached, and it is counted


def kill_children(me: int) -> None:
    """KILL and reap children of this process, and what it adopts from them, until none is left."""
    while True:
        for pid in children_of(me):
            kill_child(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def signal_held(pid: int, ticks: int, *signals: int) -> bool:
    """Signal exactly the process that had these start ticks; False when it is gone."""
    if sys.platform != "linux":
        return False
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        stat = stat_of(pid)
        if stat is None or stat[1] != ticks:
            return False
        for number in signals:
            signal.pidfd_send_signal(fd, number)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
