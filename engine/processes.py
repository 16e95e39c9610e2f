"""Processes as the worker sees them: who is who, killing strays, and sweeping after a dead worker.

A process is named by boot id, number and start time, never by its number alone: numbers are used
again, and a kill by number has been measured to hit innocents.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import sys
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import keeper_family as family

NAP = 0.001
"""Seconds between two passes of a kill loop."""
KEEPER_PATIENCE = 1.0
"""Seconds that a live keeper of a dead worker gets to finish its own kill."""
CLEAN_PASSES = 2
LISTINGS = 30
"""Most listings of /proc in a pass: a busy machine has newcomers all the time."""


@dataclass(frozen=True)
class ProcessId:
    """One process for ever: no later process compares equal.

    `start_ticks` is the start time in kernel clock ticks since boot (`/proc/PID/stat`, field 22).
    """

    boot_id: str
    pid: int
    start_ticks: int


@dataclass(frozen=True)
class Remains:
    """What is on record about a step whose worker died.

    `cookie` is the value of `BILT_COOKIE` in the step's environment ("" when it had none);
    `pids_path` is the keeper's list of the step's processes, which may be missing.
    """

    keeper: ProcessId | None
    leader: ProcessId | None
    cookie: str
    pids_path: Path


@dataclass(frozen=True)
class Swept:
    """Outcome of a sweep: processes that were alive and killed, and those still alive after it."""

    killed: int
    survivors: int


def boot_id() -> str:
    """Name this boot as the kernel does; "" where it does not."""
    return family.boot_id()


def brand_of(cookie: str) -> int:
    """The number that marks every process of a step, see `keeper_launch.set_limits`; 0 for no cookie."""
    if not cookie:
        return 0
    return (1 << 40) + int.from_bytes(hashlib.sha256(cookie.encode()).digest()[:5])


def identify(pid: int) -> ProcessId | None:
    """Name the process that has this number now; None when there is none, or only a zombie."""
    stat = family.stat_of(pid)
    return ProcessId(boot_id(), pid, stat[1]) if stat and stat[2] else None


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs; a zombie does not, nor one of another boot."""
    return identify(process.pid) == process


def become_subreaper() -> bool:
    """Adopt orphaned descendants from now on; False where the system cannot do that."""
    return family.prctl(family.SET_CHILD_SUBREAPER, 1)


def kill_strays(known: Container[int], limit: float = 10.0) -> int:
    """Kill every child of this process that is not `known`, and all that descends from those.

    For a worker whose keeper was killed: what the keeper had adopted is now the worker's. `known`
    must hold every child that is to live, keepers above all; nothing may start processes in another
    thread meanwhile, or they are taken for strays before they can be known. Blocks until no stray
    is left, dead or alive, or until `limit` seconds are over; strays are reaped.

    The answer is how many live processes were killed.
    """
    me = os.getpid()
    end = time.monotonic() + limit
    killed: set[tuple[int, int]] = set()
    while True:
        strays = [pid for pid in family.children_of(me) if pid not in known]
        for pid in strays:
            for each, ticks in _with_descendants(pid):
                if family.signal_held(each, ticks, signal.SIGKILL):
                    killed.add((each, ticks))
        for pid in strays:
            _reap(pid)
        if not strays or time.monotonic() > end:
            return len(killed)
        time.sleep(NAP)


def _with_descendants(pid: int) -> list[tuple[int, int]]:
    stat = family.stat_of(pid)
    if stat is None:
        return []
    own = [(pid, stat[1])] if stat[2] else []
    return own + list(family.walk(pid).items())


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # somebody else of this process was quicker
        os.waitpid(pid, os.WNOHANG)


def sweep(remains: Sequence[Remains], limit: float = 10.0) -> Swept:
    """Kill whatever a dead worker, and perhaps its dead keepers, left running.

    Found are the recorded processes, those on the keeper's list, the leader's session and group,
    bearers of the cookie or the brand, and the descendants of all of these. They are stopped first, so that none
    can fork while the others are looked for, then killed; two passes in a row must find nothing.
    Records of another boot name nobody. This process and its ancestors are always spared.

    Blocks for at most about `limit` seconds, plus a second for keepers that are still at work.
    """
    here = [r for r in remains if _of_this_boot(r)]
    if sys.platform != "linux" or not here:
        return Swept(0, 0)
    _await_keepers([r.keeper for r in here if r.keeper])
    search = _Search(here)
    end = time.monotonic() + limit
    while time.monotonic() < end - limit / 2 and search.hunt(signal.SIGSTOP):
        pass
    search.strike()
    clean = 0
    while clean < CLEAN_PASSES and time.monotonic() < end:
        search.hunt(signal.SIGKILL)
        clean = 0 if search.alive else clean + 1
        time.sleep(NAP)
    return Swept(len(search.hit), 0 if clean == CLEAN_PASSES else max(1, search.alive))


def _of_this_boot(remains: Remains) -> bool:
    known = [p.boot_id for p in (remains.keeper, remains.leader) if p]
    return not known or boot_id() in known


def _await_keepers(keepers: Sequence[ProcessId]) -> None:
    """Let keepers end: one that lost its worker kills better than a sweep can."""
    end = time.monotonic() + KEEPER_PATIENCE
    for keeper in keepers:
        try:
            fd = os.pidfd_open(keeper.pid)
        except OSError:
            continue
        try:
            if is_alive(keeper):
                poller = select.poll()
                poller.register(fd, select.POLLIN)
                poller.poll(max(0.0, end - time.monotonic()) * 1000)
        finally:
            os.close(fd)


@dataclass(frozen=True)
class _Seen:
    """One line of /proc: a live process during a pass."""

    parent: int
    group: int
    session: int
    ticks: int


class _Search:
    """The processes that belong to some remains, found again in every pass over /proc."""

    def __init__(self, remains: Sequence[Remains]) -> None:
        self._remains = remains
        self._boot = boot_id()
        self._spared = _line_of_ancestors()
        self._cookies = {b"BILT_COOKIE=" + os.fsencode(r.cookie) for r in remains if r.cookie}
        self._brands = {str(brand_of(r.cookie)).encode() for r in remains if r.cookie}
        self._leaders = {
            r.leader.pid: r.leader.start_ticks
            for r in remains
            if r.leader and r.leader.boot_id == self._boot
        }
        self.hit: set[tuple[int, int]] = set()
        self.alive = 0

    def hunt(self, number: int) -> int:
        """One pass: signal everything found; the count of processes never found before."""
        before = len(self.hit)
        self.alive = 0
        recorded = self._recorded()
        seen: dict[int, _Seen] = {}
        mine: set[int] = set()
        for pid in _newcomers():
            one = _look(pid)
            if one is None or pid in self._spared:
                continue
            seen[pid] = one
            if (
                (pid, one.ticks) in recorded
                or (pid, one.ticks) in self.hit
                or self._in_session(one)
                or self._has_cookie(pid)
                or self._has_brand(pid)
            ):
                mine.add(pid)
                self._signal(pid, one.ticks, number)
        grown = True
        while grown:
            young = {p for p, one in seen.items() if p not in mine and one.parent in mine}
            for pid in young:
                self._signal(pid, seen[pid].ticks, number)
            mine |= young
            grown = bool(young)
        return len(self.hit) - before

    def strike(self) -> None:
        """KILL everything that was found, at once."""
        for pid, ticks in self.hit:
            family.signal_held(pid, ticks, signal.SIGKILL)

    def _signal(self, pid: int, ticks: int, number: int) -> None:
        if family.signal_held(pid, ticks, number):
            self.alive += 1
            self.hit.add((pid, ticks))

    def _recorded(self) -> set[tuple[int, int]]:
        """Identities on record, the keepers' lists read anew: a keeper may still be writing."""
        found: set[tuple[int, int]] = set()
        for remains in self._remains:
            for process in (remains.keeper, remains.leader):
                if process and process.boot_id == self._boot:
                    found.add((process.pid, process.start_ticks))
            text = family.read_file(os.fspath(remains.pids_path))
            lines = text.decode(errors="replace").split("\n")
            if lines[0] == f"# {self._boot}":
                for line in lines[1:]:
                    pid, _, ticks = line.partition(" ")
                    if pid.isdecimal() and ticks.isdecimal():
                        found.add((int(pid), int(ticks)))
        return found

    def _in_session(self, one: _Seen) -> bool:
        """In the leader's session or group, unless the leader's number is somebody else's now."""
        for number in {one.session, one.group} & self._leaders.keys():
            born = self._leaders[number]
            holder = family.stat_of(number)
            if one.ticks >= born and (holder is None or holder[1] == born):
                return True
        return False

    def _has_cookie(self, pid: int) -> bool:
        if not self._cookies:
            return False
        environment = family.read_file(f"/proc/{pid}/environ")
        return not self._cookies.isdisjoint(environment.split(b"\0"))

    def _has_brand(self, pid: int) -> bool:
        for line in family.read_file(f"/proc/{pid}/limits").splitlines():
            if line.startswith(b"Max core file size"):
                return line.split()[-2] in self._brands
        return False


def _newcomers() -> Iterator[int]:
    """List every process, newest first, then those born meanwhile, until there are none.

    A chain of processes, each of which lives for milliseconds, would slip through a single listing.
    """
    looked: set[int] = set()
    for _ in range(LISTINGS):
        new = {int(name) for name in os.listdir("/proc") if name.isdigit()} - looked
        if not new:
            return
        looked |= new
        yield from sorted(new, reverse=True)


def _look(pid: int) -> _Seen | None:
    """Look at a live process; None for a zombie, and for a number that nobody has any more."""
    text = family.read_file(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in b"ZX":
        stat = family.stat_of(pid)
        if stat is None or not stat[2]:
            return None
    return _Seen(int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def _line_of_ancestors() -> set[int]:
    """List this process, its parent and so on: a sweep must not cut off the branch it sits on."""
    line = {1}
    pid = os.getpid()
    while pid > 0 and pid not in line:
        line.add(pid)
        stat = family.stat_of(pid)
        pid = stat[0] if stat else 0
    return line
