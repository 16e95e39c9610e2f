"""A search for a sequence of calls after which the store and a small model of it disagree.

Two store objects on one file, as two processes have; holders of stale claims; reopening; a wall clock
that jumps. Two processes search half of the sequences each. `make soak` searches for longer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from bilt_mcp.state import (
    ACTIVE,
    FINAL,
    Caller,
    CannotCancel,
    CannotPause,
    CannotResume,
    ConfirmationRequired,
    IdempotencyKeyReused,
    Note,
    NothingToConfirm,
    Plan,
    SessionNotFound,
    WorkflowAlreadyActive,
)

from .store_contract import BROKEN, GONE, ME, PROCESS, RECEIPT, SOMEBODY_ELSE
from .store_model import OUTCOMES, PLANS, Model, Run, StoreAndModel, search_in_two, without_threads
from .support.proof import Proof

HOUR = 3_600_000
STEPS = 60


Act = Callable[["StoreMachine", int, int], None]
LAST = -1
"""Draws the newest claim, at the position where its workflow is; the newest attempt; the open gate."""


class StoreMachine(StoreAndModel):
    """Every call that a caller or a worker can make."""

    who = st.integers(0, 1)
    session = st.sampled_from([0, 0, 1])
    index = st.integers(0, 10**6)

    # -- time and processes --------------------------------------------------------------------------

    @rule(jump=st.sampled_from([-HOUR, 0, 0, HOUR]), passed=st.integers(0, 5000))
    def time_passes_and_the_wall_clock_jumps(self, jump: int, passed: int) -> None:
        self.clock.go_on(passed)
        self.clock.wall += jump

    @rule(who=who)
    def reopen(self, who: int) -> None:
        self.close(self.stores[who])
        self.stores[who] = self.opened()

    # -- callers -------------------------------------------------------------------------------------

    @rule(
        who=who,
        s=session,
        plan=st.sampled_from(PLANS),
        message=st.sampled_from(["go", "größer"]),
        key=st.sampled_from([None, "k"]),
    )
    def start(self, who: int, s: int, plan: Plan, message: str, key: str | None) -> None:
        call = self.stores[who].start(ME, self.sessions[s], message, plan, key=key)
        newest = self.newest.get(s)
        known = self.keys.get((s, key)) if key else None
        if known is not None:
            if known[0] == message:
                assert self.wait(call).workflow_id == known[1]
            else:
                assert self.refused(call) is IdempotencyKeyReused
        elif newest is not None and newest.status in ACTIVE:
            assert self.refused(call) is WorkflowAlreadyActive
            assert self.told_status == newest.status
        else:
            started = self.wait(call)
            made = Model(started.workflow_id, s, plan)
            self.newest[s] = made
            self.workflows.append(made)
            if key:
                self.keys[s, key] = message, made.id

    @rule(
        who=who,
        s=session,
        plan=st.sampled_from(PLANS),
        acts=st.lists(st.deferred(lambda: st.sampled_from(ACTS)), min_size=4, max_size=16),
    )
    def live(self, who: int, s: int, plan: Plan, acts: list[Act]) -> None:
        """Calls that fit one another, on what was claimed last: by chance they would rarely meet."""
        self.clear(who, s)
        self.start(who, s, plan, "go", None)
        self.claim(who, False)
        for act in acts:
            self.both_stores_tell_what_the_model_says()  # after the last, Hypothesis asks
            act(self, who, s)

    def clear(self, who: int, s: int) -> None:
        """End what the session has, so that something new can begin."""
        model = self.newest.get(s)
        if model is not None and model.status in ACTIVE:
            self.cancel(who, s, True)
            if model.status == "cancelling":
                if model.epoch != self.epoch:
                    self.report(who, model, self.epoch)
                else:
                    call = self.stores[who].stopped(self.epoch, model.id, RECEIPT, [])
                    assert self.wait(call)
                    model.end("cancelled", "stopped")

    @rule(who=who, s=session, mine=st.sampled_from([True, True, True, False]))
    def cancel(self, who: int, s: int, mine: bool) -> None:
        account = ME if mine else SOMEBODY_ELSE
        call = self.stores[who].cancel(account, self.sessions[s], "why", Caller("me"))
        model = self.newest.get(s)
        if not mine:
            assert self.refused(call) is SessionNotFound
        elif model is None or model.status in FINAL:
            assert self.refused(call) is CannotCancel
            assert self.told_status == (model.status if model else "idle")
        else:
            answer = self.wait(call)
            assert answer.joined == (model.status == "cancelling")
            model.pause_requested = False
            if model.status == "running" and model.epoch is not None:
                model.status = "cancelling"
            elif model.status != "cancelling":
                model.end("cancelled")
            assert answer.workflow.status == model.status

    @rule(who=who, s=session)
    def request_pause(self, who: int, s: int) -> None:
        refusal = self.refused(self.stores[who].request_pause(ME, self.sessions[s], Caller("me")))
        model = self.newest.get(s)
        if model is None or model.status not in ("pending", "running"):
            assert refusal is CannotPause
        else:
            assert refusal is None
            model.pause_requested = True

    @rule(who=who, s=session)
    def resume(self, who: int, s: int) -> None:
        refusal = self.refused(self.stores[who].resume(ME, self.sessions[s], Caller("me")))
        model = self.newest.get(s)
        if model is not None and model.gate is not None:
            assert refusal is ConfirmationRequired
        elif model is None or model.status != "paused":
            assert refusal is CannotResume
        else:
            assert refusal is None
            model.status = "running"

    @rule(who=who, s=session, index=index, yes=st.booleans())
    def answer(self, who: int, s: int, index: int, yes: bool) -> None:
        model = self.newest.get(s)
        gate = model.gate if model is not None else None
        action = gate if gate and index % 4 else self.actions[index % len(self.actions)]
        verb = self.stores[who].confirm if yes else self.stores[who].decline
        refusal = self.refused(verb(ME, self.sessions[s], action, Caller("me")))
        if model is None or gate is None or gate != action:
            assert refusal is NothingToConfirm
            return
        assert refusal is None
        step = model.plan.steps[model.position - 1]
        if yes:
            model.status, model.gate, model.confirmed = "running", None, model.position
        elif step.on_decline == "skip":
            model.status, model.gate = "running", None
            model.go_to(model.position + 1)
        else:
            model.end("cancelled")

    # -- workers -------------------------------------------------------------------------------------

    @rule(who=who)
    @precondition(lambda self: self.turn % 4 == 0)
    def take_over(self, who: int) -> None:
        epoch = self.wait(self.stores[who].take_over(PROCESS, "1"))
        assert epoch == self.epoch + 1
        self.epoch, self.leaving = epoch, False
        lost = self.wait(self.stores[1 - who].lost(epoch))
        expected = [m for m in self.workflows if m.status in ACTIVE and (m.epoch or epoch) < epoch]
        assert [found.workflow_id for found in lost] == [m.id for m in expected]
        for found, model in zip(lost, expected, strict=True):
            open_runs = [run.ticket for run in model.runs if run.outcome is None]
            assert [step.ticket for step in found.steps] == open_runs

    @rule(who=who, index=index, stale=st.sampled_from([False, False, True]))
    @precondition(lambda self: self.workflows)
    def report_lost(self, who: int, index: int, stale: bool) -> None:
        model = self.workflows[-1 - index % min(3, len(self.workflows))]
        self.report(who, model, self.epoch - stale)

    def report(self, who: int, model: Model, epoch: int) -> None:
        done = self.wait(self.stores[who].report_lost(epoch, model.id, GONE, RECEIPT))
        earlier = model.epoch is not None and model.epoch < self.epoch
        assert done == (
            epoch == self.epoch and earlier and model.status in ("running", "cancelling")
        )
        if done:
            model.end("failed" if model.status == "running" else "cancelled", "lost")

    @rule(who=who, stale=st.sampled_from([False, False, True]))
    def leave(self, who: int, stale: bool) -> None:
        left = self.wait(self.stores[who].leave(self.epoch - stale))
        busy = any(m.status in ("pending", "running", "cancelling") for m in self.workflows)
        assert left == (not stale and not busy)
        self.leaving = self.leaving or left

    @rule(who=who, stale=st.sampled_from([False, False, False, True]))
    def claim(self, who: int, stale: bool) -> None:
        claim = self.wait(self.stores[who].claim(self.epoch - stale))
        model = None if stale else next((m for m in self.workflows if self.can_claim(m)), None)
        assert (claim and claim.workflow_id) == (model and model.id)
        if claim is not None and model is not None:
            assert (claim.position, claim.epoch) == (model.position, self.epoch)
            assert claim.confirmed == (model.confirmed == model.position)
            assert claim.plan == model.plan
            model.status, model.epoch = "running", self.epoch
            self.claims.append(claim)

    def can_claim(self, model: Model) -> bool:
        busy = [
            m
            for m in self.workflows
            if m.status in ("running", "cancelling") and m.epoch is not None
        ]
        most = model.plan.max_parallel
        return model.waits and (most is None or len(busy) < most)

    @rule(who=who, index=index)
    def begin_step(self, who: int, index: int) -> None:
        picked = self.pick(index)
        if picked is None:
            return
        claim, model = picked
        attempt = 1 + sum(run.ticket.position == claim.position for run in model.runs)
        if claim.position > len(claim.plan.steps):
            return
        ticket = self.wait(self.stores[who].begin_step(claim, attempt, PROCESS))
        may = self.held(model, claim) and model.status == "running"
        assert (ticket is not None) == (may and claim.position == model.position)
        if ticket is not None:
            model.runs.append(Run(ticket, claim.plan.steps[claim.position - 1].deploy))
            model.percent = None

    @rule(who=who, index=index, outcome=st.sampled_from(OUTCOMES))
    def step_ended(self, who: int, index: int, outcome: str) -> None:
        runs = [run for m in self.workflows for run in m.runs][-4:]
        if not runs:
            return
        run = runs[index % len(runs)]
        self.wait(self.stores[who].step_ended(run.ticket, outcome, 0))
        if run.outcome is None and run.ticket.epoch == self.epoch:
            run.outcome = outcome

    @rule(who=who, index=index, percent=st.sampled_from([None, 10, 90]))
    def note(self, who: int, index: int, percent: int | None) -> None:
        picked = self.pick(index)
        if picked is None:
            return
        claim, model = picked
        self.wait(
            self.stores[who].note(claim, [Note("output")], percent=percent, wrote_output=True)
        )
        if self.held(model, claim) and model.status in ("running", "cancelling"):
            model.percent = percent or model.percent

    @rule(who=who, index=index)
    def advance(self, who: int, index: int) -> None:
        picked = self.pick(index)
        if picked is None:
            return
        claim, model = picked
        position = min(model.position, len(model.plan.steps)) + 1
        done = self.wait(self.stores[who].advance(claim, position))
        assert done == (self.held(model, claim) and model.status == "running")
        if done:
            model.go_to(position)

    @rule(who=who, index=index, question=st.sampled_from([None, "Deploy it?"]))
    def pause(self, who: int, index: int, question: str | None) -> None:
        picked = self.pick(index)
        if picked is None:
            return
        claim, model = picked
        if model.position > len(model.plan.steps):
            return
        done = self.wait(self.stores[who].pause(claim, question))
        asked = question is not None or model.pause_requested
        assert done == (self.held(model, claim) and model.status == "running" and asked)
        if done:
            model.status, model.epoch, model.pause_requested = "paused", None, False
            if question is not None:
                gate = self.look(model.session).pending_action
                assert gate is not None
                model.gate = gate.action_id
                self.actions.append(gate.action_id)

    @rule(who=who, index=index, well=st.booleans())
    def end(self, who: int, index: int, well: bool) -> None:
        picked = self.pick(index)
        if picked is None:
            return
        claim, model = picked
        store = self.stores[who]
        done = self.wait(store.complete(claim, []) if well else store.fail(claim, BROKEN, []))
        assert done == (self.held(model, claim) and model.status == "running")
        if done:
            model.end("completed" if well else "failed")

    @rule(who=who, index=index, verified=st.sampled_from([True, True, False]))
    def stopped(self, who: int, index: int, verified: bool) -> None:
        picked = self.pick(index)
        if picked is None:
            return
        claim, model = picked
        store = self.stores[who]
        verb = store.stopped(claim.epoch, model.id, RECEIPT, [])
        if not verified:
            verb.close()
            verb = store.stop_unverified(claim.epoch, model.id, replace(RECEIPT, verified=False))
        done = self.wait(verb)
        assert done == (self.held(model, claim) and model.status == "cancelling")
        if done and verified:
            model.end("cancelled", "stopped")


ACTS: Sequence[Act] = (
    lambda m, who, s: m.start(who, s, PLANS[0], "go", None),
    lambda m, who, s: m.start(who, s, PLANS[1], "go", None),
    lambda m, who, s: m.claim(who, False),
    lambda m, who, s: m.claim(1 - who, False),
    lambda m, who, s: m.begin_step(who, LAST),
    lambda m, who, s: m.begin_step(1 - who, LAST),
    lambda m, who, s: m.step_ended(who, LAST, "succeeded"),
    lambda m, who, s: m.step_ended(who, LAST, "failed"),
    lambda m, who, s: m.advance(who, LAST),
    lambda m, who, s: m.note(who, LAST, 50),
    lambda m, who, s: m.request_pause(1 - who, s),
    lambda m, who, s: m.pause(who, LAST, None),
    lambda m, who, s: m.pause(who, LAST, "Deploy it?"),
    lambda m, who, s: m.resume(1 - who, s),
    lambda m, who, s: m.answer(1 - who, s, LAST, True),
    lambda m, who, s: m.answer(1 - who, s, LAST, False),
    lambda m, who, s: m.cancel(1 - who, s, True),
    lambda m, who, s: m.cancel(who, s, True),
    lambda m, who, s: m.cancel(who, s, False),
    lambda m, who, s: m.take_over(1 - who),
    lambda m, who, s: m.stopped(who, LAST, True),
    lambda m, who, s: m.end(who, LAST, True),
    lambda m, who, s: m.time_passes_and_the_wall_clock_jumps(-HOUR, 10),
)


def search(start: str, examples: int) -> None:
    """Try so many sequences, which `start` decides; an error says by which calls it was come about."""
    run_state_machine_as_test(
        seed(start)(StoreMachine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            database=None,
        ),
    )


def test_no_sequence_of_calls_makes_the_store_and_its_model_disagree(proof: Proof) -> None:
    examples = search_in_two(__name__, proof.seed, proof.size(160, long=20_000))
    proof.figure(f"{examples} sequences of up to {STEPS} calls: the model agrees with every answer")


if __name__ == "__main__":
    with without_threads():
        search(sys.argv[1], int(sys.argv[2]))
