"""Process trees that do not want to die: none of them lives when a cancel is answered, nor after a kill -9."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import anyio
import pytest

from bilt_mcp.state import Caller, CannotCancel, FailureCode, Status

from .support.agents import Agent, Json, agent_at
from .support.builds import ME, Build, build_in
from .support.hostile import SHAPES, alive, command, end
from .support.places import Place, open_place, stop_apart
from .support.proof import Bar, Proof
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

EIGHT = tuple(shape for shape in SHAPES if shape != "a stopped child")  # the mix has one too
MOMENTS = ("as it starts", "while it grows", "when it has grown")
LANES = 2
LOOK_SECONDS = 0.02
"""Between two looks at all of /proc, which cost some 5 ms each."""
VICTIMS = ("worker", "keeper", "both")

# A script that goes on by itself, and "deploys", when its keeper is killed.
ABANDONED = """
open("grown", "w").close()
keeper = os.getppid()
while os.getppid() == keeper:
    time.sleep(0.02)
time.sleep(0.3)
open("deployed", "w").close()
sleep()
"""
FINE = "[[step]]\nname = 'fine'\nrun = 'true'\n"


@dataclass(frozen=True)
class Round:
    """What was drawn for one round."""

    number: int
    shape: str
    moment: str
    grace: str
    least: int
    """Processes to wait for, while it grows."""
    pause: float
    """Seconds to go on from there: the moment is to be any."""
    keeper_first: bool
    marker: str

    def workflow(self, then: str = ABANDONED) -> str:
        """A step of this shape, and a step that deploys if anything goes on after it."""
        argv = ", ".join(f"'''{word}'''" for word in command(self.shape, self.marker, then))
        return (
            f"[[step]]\nname = 'hostile'\nrun = [{argv}]\ngrace = '{self.grace}'\n"
            "[[step]]\nname = 'deploy'\nrun = 'touch deployed'\ndeploy = true\n"
        )

    async def come(self, root: Path) -> None:
        """Return at the drawn moment."""
        if self.moment == MOMENTS[1]:
            with anyio.fail_after(20):
                while len(alive(self.marker)) < self.least:  # noqa: ASYNC110 - /proc sets no Event
                    await anyio.sleep(LOOK_SECONDS)
        elif self.moment == MOMENTS[2]:
            await wait_until((root / "grown").exists, "the step has grown", timeout=20)
        await anyio.sleep(self.pause)

    @property
    def surely_up(self) -> bool:
        """Whether the step was seen to run."""
        return self.moment != MOMENTS[0]


def rounds_of(random: Random, shapes: Sequence[str], moments: Sequence[str]) -> list[Round]:
    """One round for each of `shapes`."""
    return [
        Round(
            number,
            shape,
            random.choice(moments),
            random.choice(["0s", "500ms"]),
            random.randint(1, 2),
            random.choice([0.0, random.uniform(0, 0.08)]),
            random.random() < 0.5,
            f"marker-{random.getrandbits(64):016x}-{os.urandom(4).hex()}",
        )
        for number, shape in enumerate(shapes)
    ]


@pytest.fixture
def planned() -> Iterator[list[Round]]:
    """The rounds of the test; what a failed one leaves of their processes is ended."""
    rounds: list[Round] = []
    yield rounds
    for each in rounds:
        while left := alive(each.marker):
            end(left)


def spread(milliseconds: Sequence[float]) -> str:
    """The median, the 95th percentile and the longest."""
    ordered = sorted(milliseconds)
    return "/".join(f"{ordered[int((len(ordered) - 1) * part)]:.0f}" for part in (0.5, 0.95, 1.0))


# -- a cancel --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """What one cancel came to."""

    shape: str
    took: float
    killed: int
    kill: float
    survivors: list[int]


@asynccontextmanager
async def lanes(folder: Path) -> AsyncGenerator[list[tuple[Place, Agent]]]:
    """Agents, each with a project of its own, on one store with one worker."""
    with open_place(folder) as first:
        async with AsyncExitStack() as stack:
            found: list[tuple[Place, Agent]] = []
            for number in range(LANES):
                place = first if number == 0 else replace(first, project=folder / f"other{number}")
                place.project.mkdir(exist_ok=True)
                found.append((place, await stack.enter_async_context(agent_at(place))))
            yield found


async def cancel_once(place: Place, agent: Agent, drawn: Round) -> Answered:
    place.workflow(drawn.workflow())
    (place.project / "grown").unlink(missing_ok=True)
    session_id, workflow_id = await agent.start()
    await drawn.come(place.project)
    began = time.monotonic()
    answer = await agent.call("bilt_cancel_workflow", session_id=session_id)
    took = (time.monotonic() - began) * 1000
    left = alive(drawn.marker)
    assert left == [], f"{len(left)} of {drawn} live when the cancel is answered: {answer}"
    held(answer, workflow_id, drawn)
    assert not (place.project / "deployed").exists()
    return Answered(
        drawn.shape, took, answer["stopped"]["processes_killed"], answer["stopped"]["took_ms"], left
    )


def held(answer: Json, workflow_id: str, drawn: Round) -> None:
    """The receipt says what is true."""
    assert answer["workflow_id"] == workflow_id
    assert answer["status"] == "cancelled"
    stopped = answer["stopped"]
    assert stopped["verified"] is True
    assert stopped["survivors"] == 0
    assert stopped["deploy"] == "not_started"
    if drawn.surely_up:
        assert stopped["step"] == "hostile"
        assert stopped["processes_killed"] >= 1


async def test_no_process_of_any_shape_is_alive_when_a_cancel_is_answered(
    tmp_path: Path, planned: list[Round], proof: Proof
) -> None:
    shapes = list(EIGHT) * proof.size(10, 100)
    proof.random.shuffle(shapes)
    planned += rounds_of(proof.random, shapes, MOMENTS)
    todo = iter(planned)
    done: list[Answered] = []

    async def go_on(place: Place, agent: Agent, bar: Bar) -> None:
        for drawn in todo:
            done.append(await cancel_once(place, agent, drawn))
            bar.advance()

    async with lanes(tmp_path) as found:
        with proof.progress(len(shapes)) as bar:
            async with anyio.create_task_group() as tasks:
                for place, agent in found:
                    tasks.start_soon(go_on, place, agent, bar)
        assert len(done) == len(shapes)
        for place, _ in found:  # nobody has come back in the meantime
            assert not (place.project / "deployed").exists()
    assert [each.marker for each in planned if alive(each.marker)] == []
    slowest = max(done, key=lambda each: each.took)
    proof.figure(
        f"{len(done)} cancels of {len(EIGHT)} shapes, {sum(a.killed for a in done)} processes killed, "
        f"{sum(len(a.survivors) for a in done)} alive at the answer; answered in "
        f"{spread([a.took for a in done])} ms (p50/p95/max, the longest for {slowest.shape}), "
        f"of which the kill took {spread([a.kill for a in done])}"
    )


# -- kill -9 ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lost:
    """What one kill came to, in milliseconds from the kill."""

    victims: str
    workflow_id: str
    dead: float
    recorded: float


async def kill_once(build: Build, victims: str, drawn: Round) -> Lost:
    root = Path(build.project.root)
    build.declare(drawn.workflow())
    (root / "grown").unlink(missing_ok=True)
    workflow_id = await build.start()
    await drawn.come(root)
    worker, keeper = build.worker_pid(), build.keeper_pid()
    pids = {"worker": [worker], "keeper": [keeper], "both": [worker, keeper]}[victims]
    began = time.monotonic()
    build.kill(*(reversed(pids) if drawn.keeper_first else pids))
    dead = 0.0

    async def watch() -> None:
        nonlocal dead
        while alive(drawn.marker):  # noqa: ASYNC110
            await anyio.sleep(LOOK_SECONDS)
        dead = time.monotonic() - began

    session, recorded = await build.session(), 0.0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        # When both are gone nobody is left to notice, but the next who asks does.
        session = await build.until(Status.FAILED, asking=victims == "both")
        recorded = time.monotonic() - began
        left = alive(drawn.marker)
        assert left == [], f"{len(left)} of {drawn} live when the loss is recorded"
    workflow = session.workflow
    assert workflow is not None
    assert workflow.id == workflow_id
    assert workflow.failure is not None
    assert workflow.failure.code is FailureCode.WORKER_LOST
    assert not (root / "deployed").exists()
    build.declare(FINE)
    again = await build.start("again")
    after = (await build.ended()).workflow
    assert after is not None
    assert (after.id, after.status) == (again, Status.COMPLETED)
    return Lost(victims, workflow_id, dead * 1000, recorded * 1000)


async def was_left_alone(build: Build, lost: Lost) -> None:
    """The workflow has failed for good: one attempt of its first step is all that ever began."""
    assert (await build.store.workflow(ME, lost.workflow_id)).status is Status.FAILED
    with closing(sqlite3.connect(build.location.database)) as database:
        (begun,) = database.execute(
            "SELECT count(*) FROM step_run JOIN workflow w ON w.n = workflow WHERE w.id = ?",
            (lost.workflow_id,),
        ).fetchone()
    assert begun == 1


async def test_nothing_lives_or_deploys_after_kill_9_of_worker_keeper_or_both(
    tmp_path: Path, planned: list[Round], proof: Proof
) -> None:
    each = proof.size(10, 200)
    done: list[Lost] = []

    async def go_on(victims: str, build: Build, mine: Sequence[Round], bar: Bar) -> None:
        for drawn in mine:
            lost = await kill_once(build, victims, drawn)
            done.append(lost)
            bar.advance()
        for lost in done:
            if lost.victims == victims:
                await was_left_alone(build, lost)
        assert not (Path(build.project.root) / "deployed").exists()

    async with AsyncExitStack() as stack:
        with proof.progress(3 * each) as bar:
            async with anyio.create_task_group() as tasks:
                for victims in VICTIMS:
                    (tmp_path / victims).mkdir()
                    build = await stack.enter_async_context(build_in(tmp_path / victims))
                    # Mostly what is hardest: many of them, and some that nothing but a list or a brand finds.
                    shapes = proof.random.choices(EIGHT, [1, 1, 1, 4, 2, 2, 2, 6], k=each)
                    mine = rounds_of(proof.random, shapes, MOMENTS[1:])
                    planned += mine
                    tasks.start_soon(go_on, victims, build, mine, bar)
    assert [each.marker for each in planned if alive(each.marker)] == []
    assert len(done) == 3 * each
    told = [
        f"{victims}: dead {spread([d.dead for d in done if d.victims == victims])}, "
        f"recorded {spread([d.recorded for d in done if d.victims == victims])}"
        for victims in VICTIMS
    ]
    proof.figure(
        f"{len(done)} kills, 0 survivors, 0 deploys, all of them failed with worker_lost and the next build worked; "
        f"ms from the kill (p50/p95/max): {'; '.join(told)}"
    )


# -- once each -------------------------------------------------------------------------------------


@pytest.fixture
async def build(tmp_path: Path) -> AsyncGenerator[Build]:
    async with build_in(tmp_path) as made:
        yield made


async def test_a_cancel_that_a_stopped_worker_cannot_hear_is_done_when_that_worker_is_killed(
    build: Build, planned: list[Round], proof: Proof
) -> None:
    planned += rounds_of(proof.random, ["a mix of 48"], MOMENTS[2:])
    (drawn,) = planned
    build.declare(drawn.workflow())
    workflow_id = await build.start()
    await drawn.come(Path(build.project.root))
    worker = build.worker_pid()
    stop_apart(worker, build.location)
    try:
        decided = await build.store.cancel(ME, build.session_id, None, Caller("a test"))
        assert decided.workflow.status is Status.CANCELLING
        assert alive(drawn.marker) != []
        assert (await build.store.workflow(ME, workflow_id)).status is Status.CANCELLING
    finally:
        began = time.monotonic()
        build.kill(worker)
    workflow = (await build.until(Status.CANCELLED)).workflow  # nobody asks: its keeper sees to it
    took = (time.monotonic() - began) * 1000
    assert alive(drawn.marker) == []
    assert workflow is not None
    assert workflow.stopped is not None
    assert workflow.stopped.verified
    assert workflow.stopped.survivors == 0
    assert not (Path(build.project.root) / "deployed").exists()
    with pytest.raises(CannotCancel, match="Workflow is already cancelled"):
        await build.store.cancel(ME, build.session_id, None, Caller("a test"))
    proof.figure(f"stopped, cancelled, killed: everything dead and recorded {took:.0f} ms later")


async def test_nothing_that_a_step_left_in_the_background_outlives_its_normal_end(
    build: Build, planned: list[Round], proof: Proof
) -> None:
    planned += rounds_of(proof.random, EIGHT, MOMENTS[:1])
    ends: list[float] = []
    for drawn in planned:
        code = proof.random.choice([0, 3])
        build.declare(drawn.workflow(f"os._exit({code})").partition("[[step]]\nname = 'deploy'")[0])
        began = time.monotonic()
        await build.start()
        session = await build.ended()
        ends.append((time.monotonic() - began) * 1000)
        left = alive(drawn.marker)
        assert left == [], f"{len(left)} of {drawn} live after the step's end"
        assert session.workflow is not None
        failure = session.workflow.failure
        assert session.status == ("failed" if code else "completed")
        assert (failure.exit_code if failure else 0) == code
    with contextlib.suppress(IndexError):
        ends.pop(0)  # the first one waits for the worker to start
    proof.figure(
        f"{len(planned)} ends with something in the background, 0 alive; {spread(ends)} ms"
    )
