"""Races between processes: whatever comes at the same instant, there is one winner, and who lost is told the truth.

Every round is held to a small account of what one call after the other does. There must be an order of the round's
calls, in which none comes before one that had ended when it began, that explains each answer and what is left.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bilt_mcp.state import (
    CANCELLABLE,
    Caller,
    Claim,
    DeployState,
    Plan,
    PlannedStep,
    Session,
    SqliteStore,
    StepTicket,
    StoreLocation,
)

from .store_contract import BROKEN, ME, PROCESS, RECEIPT, still
from .support.proof import Proof
from .support.racers import (
    PREVIOUS,
    Call,
    Racers,
    Said,
    Truth,
    Turn,
    after,
    explanations,
    racers_at,
    say,
    told,
)

pytestmark = pytest.mark.anyio

RACERS = 4
LONGEST_HEAD_START = 400_000
"""Nanoseconds; a verb takes about as long."""
DEPLOY = PlannedStep("deploy", {}, deploy=True, confirm="Deploy it?")
PLAN = Plan((DEPLOY,))
SKIPPING = Plan((replace(DEPLOY, on_decline="skip"),))
RUNS = {"not_started": None, "interrupted": "open", "done": "succeeded"}
LIES = [replace(RECEIPT, deploy=deploy) for deploy in DeployState]
"""A worker's receipt says whatever of the deploy: the store knows what became of the deploy, and must say that."""


# -- on the track ------------------------------------------------------------------------------------


class Track:
    """One session of a store, brought to where a race begins, and looked at when it is over."""

    def __init__(self, store: SqliteStore, racers: Racers, proof: Proof) -> None:
        self.store, self.racers, self.random = store, racers, proof.random
        self.session_id, self.workflow_id, self.action_id, self.epoch = "", "", "", 0
        self.claim: Claim | None = None
        self.plan = PLAN
        self.overlapped = 0

    async def prepare(self) -> None:
        project = await self.store.open_project(ME, "/work", "shop")
        self.session_id = (await self.store.latest_session(ME, project.id)).id
        self.epoch = await self.store.take_over(PROCESS, "1")

    def caller(self, verb: str, *given: object) -> Call:
        return Call(verb, (ME, self.session_id, *given))

    def worker(self, verb: str, *given: object) -> Call:
        return Call(verb, (self.claim, *given))

    def stopped(self) -> Call:
        return Call("stopped", (self.epoch, self.workflow_id, self.random.choice(LIES), []))

    async def start(self) -> None:
        """A new workflow that nobody has taken up."""
        started = await self.store.start(ME, self.session_id, "go", self.plan)
        self.workflow_id, self.claim = started.workflow_id, None

    async def hold(self) -> None:
        """A new workflow that is about to deploy."""
        await self.start()
        self.claim = await self.store.claim(self.epoch)
        assert self.claim is not None
        assert self.claim.workflow_id == self.workflow_id

    async def pause(self, question: str | None) -> None:
        """A new workflow that waits before the deploy."""
        await self.hold()
        assert self.claim is not None
        if question is None:
            await self.store.request_pause(ME, self.session_id, Caller("me"))
        assert await self.store.pause(self.claim, question)
        gate = (await self.look()).pending_action
        self.action_id = gate.action_id if gate else ""

    async def look(self) -> Session:
        return still(await self.store.session(ME, self.session_id))

    async def race(self, *turns: Sequence[Call]) -> tuple[list[Said], Truth]:
        """Let them run, hold what they say to the account, and end what is left."""
        before = await self.look()
        truth = self.truth_of(before)
        racing = [Turn(calls, self.random.randrange(LONGEST_HEAD_START)) for calls in turns]
        self.random.shuffle(racing)
        said = sorted(self.racers.race(*racing), key=lambda one: one.began)
        self.overlapped += any(one.began < other.ended for other, one in pairwise(said))
        claims = [one.answer for one in said if isinstance(one.answer, Claim)]
        self.claim = self.claim or next(iter(claims), None)
        session = await self.look()
        seen = self.truth_of(session)
        ends = explanations(truth, said)
        fitting = [end for end in ends if end.shown == seen.shown]
        assert fitting, "\n".join(map(str, [truth, *said, session, *ends]))
        happened = max(end.changes for end in fitting)
        # A cancel of what nobody holds is two steps at once.
        assert happened <= session.revision - before.revision <= 2 * happened
        return said, await self.settle(fitting[0], session)

    def truth_of(self, session: Session) -> Truth:
        """What a reader is told. A race begins where no deploy of the workflow to come has begun."""
        found = session.workflow
        skips = self.plan is SKIPPING
        if found is None:
            return Truth(skips)
        held = found.status in ("running", "cancelling") and self.claim is not None
        gate = session.pending_action is not None
        run = RUNS[found.deploy]
        return Truth(
            skips, found.status, held, found.position, found.pause_requested, gate, run=run
        )

    async def settle(self, truth: Truth, session: Session) -> Truth:
        """End what the race has left, and see that a cancelled one stays so; what is true then."""
        assert session.workflow is not None
        self.workflow_id = session.workflow.id
        for call in (self.caller("cancel", None, Caller("me")), self.stopped()):
            if truth.status in ("cancelling" if call.verb == "stopped" else CANCELLABLE):
                truth = await self.say(truth, call)
                session = await self.look()
        workflow = session.workflow
        assert workflow is not None
        assert (workflow.status, workflow.deploy) == (truth.status, truth.deploy)
        if workflow.status == "cancelled":
            assert workflow.stopped is not None
            assert (workflow.stopped.verified, workflow.stopped.deploy) == (True, truth.deploy)
            await self.say(truth, self.random.choice(self.too_late()))
            assert await self.look() == session
        return truth

    async def say(self, truth: Truth, call: Call) -> Truth:
        answer, then = after(truth, call)
        assert told((await say(self.store, call)).answer) == answer, call
        return then

    def too_late(self) -> list[Call]:
        """Calls that change nothing after a cancel."""
        verbs = ("confirm", "decline")
        calls = [self.caller(verb, self.action_id, Caller("me")) for verb in verbs]
        calls += [self.caller(verb, Caller("me")) for verb in ("resume", "request_pause")]
        calls += [
            self.caller("cancel", None, Caller("me")),
            Call("claim", (self.epoch,)),
            self.stopped(),
        ]
        if self.claim is not None:
            calls += [
                Call("begin_step", (replace(self.claim, position=1), 2, PROCESS)),
                self.worker("complete", []),
                self.worker("fail", BROKEN, []),
                self.worker("advance", 2),
                self.worker("pause", "Deploy it?"),
            ]
        return calls


@pytest.fixture
async def track(quick_path: Path, proof: Proof) -> AsyncGenerator[Track]:
    location = StoreLocation.of(quick_path / "store")
    async with SqliteStore(location) as store:
        with racers_at(location, RACERS) as racers:
            found = Track(store, racers, proof)
            await found.prepare()
            yield found
    with closing(sqlite3.connect(location.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# -- the races ---------------------------------------------------------------------------------------


async def test_of_an_end_and_two_cancels_one_wins_and_the_receipt_tells_the_truth_about_the_deploy(
    track: Track, proof: Proof
) -> None:
    won: Counter[str] = Counter()
    for _ in proof.rounds(1000, long=10_000):
        await track.hold()
        cancels = [[track.caller("cancel", why, Caller("me"))] for why in ("a", "b")]
        cancels[0] += [track.stopped()] * proof.random.randrange(2)
        deploy = [track.worker("begin_step", 1, PROCESS)]
        ticket = StepTicket(track.workflow_id, 1, 1, track.epoch)
        deploy += [Call("step_ended", (ticket, "succeeded", 0))] * proof.random.randrange(2)
        said, truth = await track.race([track.worker("complete", [])], *cancels, deploy)
        winners = [
            one.call for one in said if told(one.answer) in (True, ("cancelling", "decided"))
        ]
        (winner,) = [call for call in winners if call.verb in ("complete", "cancel")]
        assert truth.status == ("completed" if winner.verb == "complete" else "cancelled")
        won[winner.verb if winner.verb == "complete" else f"cancel {winner.given[2]}"] += 1
        won[f"deploy {truth.deploy}"] += 1
    proof.figure(
        f"{track.overlapped} of {won.total() // 2} rounds overlapped; the end won {won['complete']}, the cancels "
        f"{won['cancel a']} and {won['cancel b']}; deploy not started {won['deploy not_started']}, interrupted "
        f"{won['deploy interrupted']}, done {won['deploy done']}; 0 untrue answers"
    )


async def start_or_cancel(track: Track) -> list[list[Call]]:
    start = track.caller("start", "go", track.plan)
    return [
        [start],
        [start],
        [track.caller("cancel", None, Caller("me"))],
        [Call("claim", (track.epoch,))],
    ]


async def claim_or_cancel(track: Track) -> list[list[Call]]:
    await track.start()
    cancel, claim = track.caller("cancel", None, Caller("me")), Call("claim", (track.epoch,))
    return [[claim], [cancel], [cancel], [claim, Call("complete", (PREVIOUS, []))]]


async def pause_or_cancel(track: Track) -> list[list[Call]]:
    await track.hold()
    pause = track.worker("pause", track.random.choice([None, "Deploy it?"]))
    asked = [track.caller("request_pause", Caller("me"))]
    begun = [track.worker("begin_step", 1, PROCESS)]
    return [asked, [pause], [track.caller("cancel", None, Caller("me"))], begun]


def then_deploy(track: Track, first: Call) -> list[Call]:
    """A decision, and what a worker does about it at once."""
    deploy = [Call("begin_step", (PREVIOUS, 1, PROCESS))] * (track.plan is PLAN)
    return [first, Call("claim", (track.epoch,)), *deploy]


async def resume_or_cancel(track: Track) -> list[list[Call]]:
    await track.pause(None)
    resume, cancel = (
        track.caller("resume", Caller("me")),
        track.caller("cancel", None, Caller("me")),
    )
    return [then_deploy(track, resume), then_deploy(track, resume), [cancel]]


async def confirm_or_cancel(track: Track) -> list[list[Call]]:
    await track.pause("Deploy it?")
    confirm = track.caller("confirm", track.action_id, Caller("me"))
    cancel, resume = (
        track.caller("cancel", None, Caller("me")),
        track.caller("resume", Caller("me")),
    )
    return [then_deploy(track, confirm), [cancel], then_deploy(track, confirm), [resume]]


async def decline_or_cancel(track: Track) -> list[list[Call]]:
    await track.pause("Deploy it?")
    decline = track.caller("decline", track.action_id, Caller("me"))
    return [[decline], [track.caller("cancel", None, Caller("me"))], then_deploy(track, decline)]


async def confirm_or_decline(track: Track) -> list[list[Call]]:
    await track.pause("Deploy it?")
    given = track.action_id, Caller("me")
    confirm, decline = track.caller("confirm", *given), track.caller("decline", *given)
    return [then_deploy(track, confirm), [decline], then_deploy(track, confirm)]


RACES: Sequence[Callable[[Track], Awaitable[list[list[Call]]]]] = (
    start_or_cancel,
    claim_or_cancel,
    pause_or_cancel,
    resume_or_cancel,
    confirm_or_cancel,
    decline_or_cancel,
    confirm_or_decline,
)


async def test_of_calls_that_exclude_each_other_one_wins_and_the_others_are_told_so(
    track: Track, proof: Proof
) -> None:
    won: dict[str, Counter[str]] = {race.__name__: Counter() for race in RACES}
    for number in proof.rounds(500, long=5000):
        race = RACES[number % len(RACES)]
        track.plan = proof.random.choice([PLAN, SKIPPING])
        said, _ = await track.race(*await race(track))
        cancelled = ("cancelling", "decided"), ("cancelled", "decided")
        won[race.__name__][
            "cancel" if any(told(one.answer) in cancelled for one in said) else "other"
        ] += 1
    rounds = sum(n.total() for n in won.values())
    told_all = ", ".join(
        f"{name.replace('_', ' ')} {n['cancel']} of {n.total()}" for name, n in won.items()
    )
    proof.figure(
        f"{track.overlapped} of {rounds} rounds overlapped; a cancel won: {told_all}; 0 untrue answers"
    )
