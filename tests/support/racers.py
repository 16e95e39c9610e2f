"""Processes that each have the store open and make their calls at the same instant; the barrier is shared memory."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from bilt_mcp.state import (
    ACTIVE,
    CANCELLABLE,
    BiltError,
    Cancelled,
    Claim,
    SqliteStore,
    StepTicket,
    StoreLocation,
    Workflow,
)

ROOT = Path(__file__).resolve().parent.parent.parent
RACER = "from tests.support.racers import serve; serve()"
PATIENCE = 60.0
PREVIOUS = "what the call before has answered"
"""Stands for that among a call's arguments; the call is left out when the one before got nothing."""


@dataclass(frozen=True)
class Call:
    """A verb of the store."""

    verb: str
    given: Sequence[Any]
    named: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Refused:
    """The documented error that a call got."""

    error: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """A call, what it answered, and when by the clock that all processes share, in nanoseconds."""

    call: Call
    answer: Any
    began: int
    ended: int


@dataclass(frozen=True)
class Turn:
    """What one racer does after the barrier."""

    calls: Sequence[Call]
    head_start: int = 0
    """Nanoseconds that it waits for the others: without, whoever calls the shortest way always wins."""


@dataclass(frozen=True)
class Failed:
    """A racer's own end: an error that nobody documented."""

    error: str


async def say(store: SqliteStore, call: Call) -> Said:
    """Make a call on a store of this process."""
    began = time.monotonic_ns()
    try:
        answer = await getattr(store, call.verb)(*call.given, **call.named)
    except BiltError as error:
        answer = Refused(error.error, dict(error.details))
    return Said(call, answer, began, time.monotonic_ns())


# -- what may be answered: one call after the other ------------------------------------------------

ALREADY = {
    "completed": "Workflow has already completed",
    "failed": "Workflow has already failed",
    "cancelled": "Workflow is already cancelled",
}


# -- one call after the other ------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """A session's newest workflow, which has one step, a deploy."""

    skips: bool = False
    """Whether who declines the deploy only leaves it out."""
    status: str = "idle"
    held: bool = False
    position: int = 1
    asked: bool = False
    gate: bool = False
    confirmed: int = 0
    run: str | None = None
    """How the one attempt of the deploy ended: "open" while it has not."""
    changes: int = 0
    """How many calls have happened."""

    @property
    def deploy(self) -> str:
        return {None: "not_started", "succeeded": "done"}.get(self.run, "interrupted")

    @property
    def shown(self) -> tuple[object, ...]:
        """What any reader can see of it."""
        return self.status, self.position, self.asked, self.gate, self.deploy

    def now(self, **changed: Any) -> Truth:
        return replace(self, **changed, changes=self.changes + 1)


Outcome = tuple[Any, Truth]


def after(truth: Truth, call: Call) -> Outcome:
    """What a call answers when nothing else happens meanwhile, and what is true then."""
    handlers: dict[str, Callable[[Truth, Call], Outcome]] = {
        "start": _start,
        "cancel": _cancel,
        "request_pause": _request_pause,
        "resume": _resume,
        "confirm": _answer,
        "decline": _answer,
        "claim": _claim,
        "begin_step": _begin_step,
        "step_ended": _step_ended,
        "pause": _pause,
    }
    return handlers.get(call.verb, _end)(truth, call)


def _start(truth: Truth, call: Call) -> Outcome:
    if truth.status in ACTIVE:
        return ("Workflow already active", truth.status), truth
    return "accepted", Truth(truth.skips, "pending", changes=truth.changes + 1)


def _cancel(truth: Truth, call: Call) -> Outcome:
    if truth.status == "cancelling":
        return ("cancelling", "joined"), truth
    if truth.status not in CANCELLABLE:
        told = ALREADY.get(truth.status, "Session has no workflow to cancel")
        return ("Cannot cancel workflow", truth.status, told), truth
    status = "cancelling" if truth.status == "running" and truth.held else "cancelled"
    return (status, "decided"), truth.now(status=status, asked=False, gate=False)


def _request_pause(truth: Truth, call: Call) -> Outcome:
    if truth.status not in ("pending", "running"):
        return ("Cannot pause workflow", truth.status), truth
    return truth.status, truth.now(asked=True)


def _resume(truth: Truth, call: Call) -> Outcome:
    if truth.gate:
        return "Confirmation required", truth
    if truth.status != "paused":
        return ("Cannot resume workflow", truth.status), truth
    return "running", truth.now(status="running", asked=False)


def _answer(truth: Truth, call: Call) -> Outcome:
    if not truth.gate:
        return ("Nothing to confirm", truth.status), truth
    if call.verb == "confirm":
        return "running", truth.now(status="running", gate=False, confirmed=truth.position)
    if truth.skips:
        position = truth.position + 1
        return "running", truth.now(status="running", gate=False, position=position)
    return "cancelled", truth.now(status="cancelled", gate=False)


def _claim(truth: Truth, call: Call) -> Outcome:
    if truth.status != "pending" and (truth.status != "running" or truth.held):
        return None, truth
    got = truth.position, truth.confirmed == truth.position
    return got, truth.now(status="running", held=True)


def _begin_step(truth: Truth, call: Call) -> Outcome:
    if truth.status != "running" or not truth.held or call.given[0].position != truth.position:
        return None, truth
    return "begun", truth.now(run="open")


def _step_ended(truth: Truth, call: Call) -> Outcome:
    if truth.run != "open":
        return None, truth
    return None, truth.now(run=call.given[1])


def _pause(truth: Truth, call: Call) -> Outcome:
    question = call.given[1] is not None
    if truth.status != "running" or not truth.held or not (question or truth.asked):
        return False, truth
    return True, truth.now(status="paused", held=False, asked=False, gate=question)


def _end(truth: Truth, call: Call) -> Outcome:
    needed = "cancelling" if call.verb == "stopped" else "running"
    if truth.status != needed or not truth.held:
        return False, truth
    if call.verb == "advance":
        return True, truth.now(position=call.given[1])
    if call.verb == "stopped":
        run = "stopped" if truth.run == "open" else truth.run
        return True, truth.now(status="cancelled", run=run)
    return True, truth.now(status="completed" if call.verb == "complete" else "failed")


def told(answer: Any) -> Any:
    """A real answer in the words of the account above."""
    if isinstance(answer, Refused):
        status = answer.details.get("current_status")
        if answer.error == "Cannot cancel workflow":
            return answer.error, status, answer.details["message"]
        return answer.error if status is None else (answer.error, status)
    if isinstance(answer, Cancelled):
        return answer.workflow.status.value, "joined" if answer.joined else "decided"
    if isinstance(answer, Claim):
        return answer.position, answer.confirmed
    if isinstance(answer, StepTicket):
        return "begun"
    if isinstance(answer, Workflow):
        return answer.status.value
    return answer if answer is None or isinstance(answer, bool) else "accepted"


def explanations(truth: Truth, said: Sequence[Said]) -> set[Truth]:
    """What can be true after these calls, over every order of them that explains all answers."""
    if not said:
        return {truth}
    first_end = min(one.ended for one in said)
    found: set[Truth] = set()
    for one in said:
        if one.began <= first_end:
            answer, then = after(truth, one.call)
            if answer == told(one.answer):
                found |= explanations(then, [other for other in said if other is not one])
    return found


# -- the processes ---------------------------------------------------------------------------------


class Racers:
    """Some racers on one store."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._processes = processes
        self._rounds = 0

    def race(self, *turns: Turn) -> list[Said]:
        """Let one racer take each turn, all at the same instant; every answer, in no order."""
        self.start(*turns)
        return self.answers()

    def start(self, *turns: Turn) -> None:
        """Send the turns; those that get none do not take part."""
        self._rounds += 1
        assert len(turns) <= len(self._processes)
        self._racing = self._processes[: len(turns)]
        for process, turn in zip(self._racing, turns, strict=True):
            pickle.dump((self._rounds, len(turns), turn), _pipe(process.stdin))
            _pipe(process.stdin).flush()

    def answers(self) -> list[Said]:
        """What the turns came to, when all are over."""
        found: list[Said] = []
        for process in self._racing:
            said = pickle.load(_pipe(process.stdout))
            if isinstance(said, Failed):
                raise AssertionError(f"a racer got what no caller may get: {said.error}")
            found += said
        return found


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


@contextlib.contextmanager
def racers_at(location: StoreLocation, count: int) -> Generator[Racers]:
    """So many processes with the store open; they have ended when this is left."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.NamedTemporaryFile(prefix="bilt-barrier-") as barrier:
        barrier.write(bytes(8 * count))
        barrier.flush()
        try:
            for number in range(count):
                command = [sys.executable, "-c", RACER]
                given = [str(location.database), barrier.name, str(number)]
                processes.append(
                    subprocess.Popen(
                        command + given, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                    )
                )
            racers = Racers(processes)
            racers.race(*[Turn([])] * count)  # all have the store open
            yield racers
        finally:
            for process in processes:
                with contextlib.suppress(BrokenPipeError):
                    _pipe(process.stdin).close()
            for process in processes:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                _pipe(process.stdout).close()


# -- in a racer --------------------------------------------------------------------------------------


async def _race(store: SqliteStore, turn: Turn) -> list[Said]:
    after = time.monotonic_ns() + turn.head_start
    while time.monotonic_ns() < after:
        pass
    found: list[Said] = []
    for call in turn.calls:
        given = list(call.given)
        if PREVIOUS in given:
            if found[-1].answer is None or isinstance(found[-1].answer, Refused):
                break
            given[given.index(PREVIOUS)] = found[-1].answer
        found.append(await say(store, replace(call, given=given)))
    return found


def _meet(slots: memoryview, mine: int, number: int, racing: int) -> None:
    """Return when all who race are here, at the same instant."""
    slots[mine] = number
    deadline = time.monotonic() + PATIENCE
    while min(slots[:racing]) < number:
        if time.monotonic() > deadline:
            raise TimeoutError("the other racers have not come")
        os.sched_yield()


async def _serve(database: str, barrier: str, mine: int) -> None:
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    with open(barrier, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:  # noqa: ASYNC230
        slots = memoryview(memory).cast("Q")
        async with SqliteStore(StoreLocation.of(database)) as store:
            while True:
                try:
                    number, racing, turn = pickle.load(source)
                except EOFError:
                    break
                try:
                    _meet(slots, mine, number, racing)
                    said: object = await _race(store, turn)
                except Exception as error:
                    said = Failed(f"{type(error).__name__}: {error}")
                pickle.dump(said, answers)
                answers.flush()
        slots.release()


def serve() -> None:
    """Be a racer: the store's file, the barrier's and this racer's number are the arguments."""
    database, barrier, mine = sys.argv[1:]
    asyncio.run(_serve(database, barrier, int(mine)))
