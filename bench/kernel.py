"""What the kernel says about processes, asked of nobody else: who bears a marker, who is alive, how large."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

MS = 1_000_000
"""Nanoseconds in a millisecond."""


class Process(NamedTuple):
    """One process for ever: a later one with the same number has other start ticks."""

    pid: int
    ticks: int


def now() -> int:
    """CLOCK_MONOTONIC in nanoseconds, which all processes share."""
    return time.monotonic_ns()


def bearers(marker: str) -> list[Process]:
    """The live processes with the marker among their arguments or variables.

    Lists /proc until a listing brings nobody new, so that a process born meanwhile is not overlooked.
    """
    wanted = marker.encode()
    found: list[Process] = []
    looked: set[int] = set()
    for _ in range(50):
        new = {int(name) for name in os.listdir("/proc") if name.isdigit()} - looked
        if not new:
            break
        looked |= new
        for pid in new:
            if wanted in _read(pid, "cmdline") or wanted in _read(pid, "environ"):
                process = _alive(pid)
                if process is not None:
                    found.append(process)
    return found


def is_alive(process: Process) -> bool:
    """Whether exactly this process runs; a zombie does not."""
    return _alive(process.pid) == process


def identity(pid: int) -> Process | None:
    """The process that has this number now, if one is alive."""
    return _alive(pid)


def kill(process: Process) -> None:
    """KILL a process that `bearers` has just named."""
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, 9)


def memory_mib(pid: int, field: str = "VmRSS") -> float | None:
    """A line of /proc/PID/status in MiB: VmRSS is the size now, VmHWM its peak."""
    for line in _read(pid, "status").splitlines():
        if line.startswith(field.encode() + b":"):
            return int(line.split()[1]) / 1024
    return None


def cpu_ns(pid: int) -> int:
    """How long all threads of a process that live now have been on a core."""
    found = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += int((_read(pid, f"task/{thread}/schedstat").split() or [b"0"])[0])
    return found


def children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(pid, f"task/{thread}/children").split())
    return found


def with_arguments(*parts: str) -> list[int]:
    """The processes whose command line has all of these arguments."""
    wanted = {part.encode() for part in parts}
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in numbers if wanted <= set(_read(pid, "cmdline").split(b"\0"))]


def _alive(pid: int) -> Process | None:
    fields = _read(pid, "stat").rpartition(b") ")[2].split()
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[19]))


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


class Opened:
    """Notes the moment at which somebody opens a FIFO to write: the first thing that a step does."""

    def __init__(self, fifo: Path) -> None:
        self._fifo = fifo
        self._moment: int | None = None
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        descriptor = os.open(self._fifo, os.O_RDONLY)
        self._moment = now()
        os.close(descriptor)

    def moment(self, timeout: float = 30) -> int:
        """When it was opened; waits for it."""
        self._thread.join(timeout)
        if self._moment is None:
            raise TimeoutError(f"nothing opened {self._fifo.name} within {timeout:.0f} s")
        return self._moment

    def release(self) -> None:
        """Let the thread go if nobody has opened it: whoever measured has given up."""
        with contextlib.suppress(OSError):
            os.close(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))


class PeakMemory:
    """The largest VmHWM of some processes, looked at while a block runs: they may end before it does."""

    def __init__(self, who: Callable[[], Sequence[int]], every: float = 0.02) -> None:
        self._who = who
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.mib = 0.0

    def _look(self) -> None:
        while not self._over.wait(self._every):
            for pid in self._who():
                self.mib = max(self.mib, memory_mib(pid, "VmHWM") or 0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()


def until(reached: Callable[[], bool], what: str, seconds: float = 60, nap: float = 0.002) -> None:
    """Return when `reached()` says so; raises when that takes too long."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(nap)
