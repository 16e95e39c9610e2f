"""Rounds of one job on each peer in turn: start, cancel, and who of the job is alive when."""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from drive import Peer
from known import Known, forms

from bilt_mcp.bench.figures import percentile
from bilt_mcp.bench.kernel import (
    MS,
    Opened,
    Process,
    bearers,
    is_alive,
    kill,
    memory_mib,
    now,
    until,
)

JOB = 3
"""Processes of the job; a peer may add a wrapper of its own."""
LIMIT_SECONDS = 10.0
"""How long after its answer a cancel may take effect."""
SETTLED_SECONDS = 1.5
"""Once the peer calls the job over, something of it is dead and for so long nothing more has died, nothing will."""
LOOK_EVERY_SECONDS = 0.001

Make = Callable[[Path], Peer]


@dataclass
class Row:
    """What was measured of one peer; times in ms."""

    peer: str
    note: str
    version: str | None = None
    start: list[float] = field(default_factory=list[float])
    answer: list[float] = field(default_factory=list[float])
    dead: list[float] = field(default_factory=list[float])
    """Until everything was dead: the rounds in which that was so."""
    last_death: list[float] = field(default_factory=list[float])
    """Until the last of those died that did."""
    at_answer: list[int] = field(default_factory=list[int])
    after: list[int] = field(default_factory=list[int])
    first: list[float] = field(default_factory=list[float])
    memory_mib: float | None = None
    skipped: str | None = None

    @property
    def never(self) -> bool:
        """Whether there was a round in which something of the job outlived its cancel."""
        return any(self.after)

    def record(self) -> dict[str, Any]:
        """As JSON; null where it does not apply."""
        return {
            "peer": self.peer,
            "version": self.version,
            "start_ms": summary(self.start),
            "cancel_answer_ms": summary(self.answer),
            "cancel_dead_ms": None if self.never else summary(self.dead),
            "cancel_last_death_ms": summary(self.last_death),
            "survivors_at_answer": _mean(self.at_answer),
            "survivors_after": _mean(self.after),
            "memory_mib": self.memory_mib,
            "first_answer_ms": summary(self.first),
            "skipped": self.skipped,
            "note": self.note,
        }


def summary(samples: Sequence[float]) -> dict[str, float] | None:
    """p50, p95 and how many; None of none."""
    if not samples:
        return None
    return {
        "p50": percentile(samples, 50),
        "p95": percentile(samples, 95),
        "n": len(samples),
    }


def _mean(counts: Sequence[int]) -> float | None:
    return statistics.fmean(counts) if counts else None


class Watch:
    """Looks at some processes all the time, and knows when each was first seen dead."""

    def __init__(self, tree: Sequence[Process]) -> None:
        self._alive = set(tree)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.last_death: int | None = None

    def _look(self) -> None:
        while self._alive and not self._stop.wait(LOOK_EVERY_SECONDS):
            gone = {process for process in self._alive if not is_alive(process)}
            if gone:
                self.last_death = now()
                self._alive -= gone

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def settle(self, deadline: float) -> None:
        """Return when all are dead, when nothing more is going to die, or at the deadline (monotonic)."""
        while self._alive and time.monotonic() < deadline:
            quiet = None if self.last_death is None else (now() - self.last_death) / MS / 1000
            if quiet is not None and quiet > SETTLED_SECONDS:
                return
            time.sleep(0.01)


def one_round(peer: Peer, row: Row, phase: float, *, group: bool) -> None:
    """Start the job, cancel it at a moment that nobody can foresee, and see what is left of it."""
    # The first word chooses the step where a message does; the rest finds the processes.
    marker = f"tree {uuid4().hex}"
    opened = Opened(peer.project / "grown")
    try:
        span = peer.start(marker, group=group)
        began = opened.moment()
        until(lambda: len(bearers(marker)) >= JOB, f"{JOB} processes of the job are alive")
        time.sleep(random.uniform(0.02, 0.08) + random.uniform(0, phase))
        tree = bearers(marker)
        with Watch(tree) as watch:
            cancel = peer.cancel()
            at_answer = sum(map(is_alive, tree))
            deadline = time.monotonic() + LIMIT_SECONDS
            peer.await_over(LIMIT_SECONDS)
            watch.settle(deadline)
        left = {process for process in tree if is_alive(process)} | set(bearers(marker))
        row.start.append((began - span.began) / MS)
        row.answer.append((cancel.answered - cancel.began) / MS)
        row.at_answer.append(at_answer)
        row.after.append(len(left))
        if watch.last_death is not None:
            row.last_death.append((watch.last_death - cancel.began) / MS)
            if not left:
                row.dead.append(row.last_death[-1])
    finally:
        for process in bearers(marker):
            kill(process)
        opened.release()
        until(lambda: not bearers(marker), "what is left of the job is gone")


def measure(
    makes: Sequence[tuple[Known, Make]], project: Path, rounds: int, opens: int
) -> list[Row]:
    """All peers, opened once unseen and `opens` times seen, and then side by side for `rounds` rounds.

    A peer that fails is left out from there on, and its rows say why.
    """
    rows = {form: Row(form.name, form.note) for known, _ in makes for form in forms(known)}
    running: dict[Known, Peer] = {}
    with ExitStack() as stack:
        for known, make in makes:
            own = [rows[form] for form in forms(known)]
            with _leaving_out(own):
                running[known] = _opened(known, make, project, opens, own, stack)
        turns = [form for form in rows if form.known in running]
        for number in range(rounds):
            random.shuffle(turns)
            for form in turns:
                row, peer = rows[form], running[form.known]
                if not row.skipped:
                    _say(f"round {number + 1} of {rounds}: {form.name}")
                    with _leaving_out([rows[other] for other in forms(form.known)]):
                        one_round(peer, row, form.known.phase, group=form.group)
        for known, peer in running.items():
            sizes = [memory_mib(process.pid) or 0.0 for process in peer.counted()]
            for form in forms(known):
                rows[form].memory_mib = sum(sizes) or None
    return list(rows.values())


def _opened(
    known: Known, make: Make, project: Path, opens: int, rows: Sequence[Row], stack: ExitStack
) -> Peer:
    """The peer, ready for rounds; the stack closes it."""
    for number in range(opens):
        _say(f"opening {known.name} ({number} of {opens})")
        peer, first = _open(make, project)
        peer.close()
        # The first opening finds cold files: it is not counted.
        _note(rows, first if number else None)
    _say(f"opening {known.name} ({opens} of {opens})")
    peer, first = _open(make, project)
    _note(rows, first)
    stack.callback(_close, peer)
    # Nor is everybody's first job, which finds no worker yet.
    for form in forms(known):
        one_round(peer, Row("", ""), 0, group=form.group)
    return peer


def _note(rows: Sequence[Row], first: float | None) -> None:
    if first is not None:
        for row in rows:
            row.first.append(first)


def _open(make: Make, project: Path) -> tuple[Peer, float | None]:
    folder = Path(tempfile.mkdtemp(prefix="peer-", dir=project.parent))
    peer = make(project)
    try:
        first = peer.open(folder)
    except BaseException as error:
        with contextlib.suppress(Exception):
            peer.close()
        if isinstance(error, Exception):
            raise RuntimeError(f"{error}; {_complaint(folder)}") from error
        raise
    return peer, first


def _complaint(folder: Path) -> str:
    logs = [log.read_text("utf-8", "replace").strip() for log in folder.glob("*.log")]
    return " | ".join(log.splitlines()[-1] for log in logs if log)[-300:]


def _close(peer: Peer) -> None:
    try:
        peer.close()
    except Exception as error:
        _say(f"closing {peer}: {error}")


@contextlib.contextmanager
def _leaving_out(rows: Sequence[Row]) -> Generator[None]:
    try:
        yield
    except Exception as error:
        for row in rows:
            row.skipped = f"{type(error).__name__}: {error}"
            print(f"SKIPPED {row.peer}: {row.skipped}", file=sys.stderr, flush=True)


def _say(what: str) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"\033[K{what}" if end == "\r" else what, end=end, file=sys.stderr, flush=True)
