"""The contract of a store: what a worker does, and that no worker but the present one does anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from bilt_mcp.state import (
    Caller,
    DeployState,
    MessageQuery,
    Note,
    Plan,
    PlannedStep,
    ProcessRecord,
    SessionStore,
    StepTicket,
)

from .store_contract import (
    BROKEN,
    BUILD,
    DEPLOY,
    GONE,
    ME,
    NOBODY_KNOWS,
    ONCE_HELD,
    PLAN,
    PROCESS,
    RECEIPT,
    Backend,
    Kind,
    ManualClock,
    Scene,
    Subject,
)

pytestmark = pytest.mark.anyio

LEADER = ProcessRecord("boot", 4712, 100)
ONLY_DEPLOY = Plan((DEPLOY,))


# -- coming and going ------------------------------------------------------------------------------


async def test_each_worker_gets_a_higher_epoch(store: SessionStore, other: SessionStore) -> None:
    epochs = [await each.take_over(PROCESS, "1") for each in (store, other, store)]
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("kind", Kind)
async def test_a_worker_leaves_exactly_when_nothing_waits_for_one(scene: Scene, kind: Kind) -> None:
    store, subject = scene.store, await scene.subject(kind)
    epoch = await scene.epoch()
    busy = (await scene.look(subject)).status in ("pending", "running", "cancelling")
    assert await store.waiting_for_worker() == busy
    assert not await store.worker_leaving()
    assert await store.leave(epoch) != busy
    assert await store.worker_leaving() != busy


async def test_nobody_is_the_worker_until_one_takes_over(store: SessionStore) -> None:
    assert await store.worker_leaving()
    first = await store.take_over(PROCESS, "1")
    assert not await store.worker_leaving()
    await store.take_over(PROCESS, "1")
    assert not await store.leave(first), "only the present worker can leave"
    assert not await store.worker_leaving()


# -- claiming --------------------------------------------------------------------------------------


async def test_a_claim_has_everything_that_is_needed_to_go_on(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.PENDING, message="Baue, größer")
    clock.go_on(1500)
    claim = await scene.claim()
    assert (claim.workflow_id, claim.session_id) == (subject.workflow_id, subject.session_id)
    assert (claim.message, claim.plan, claim.position) == ("Baue, größer", PLAN, 1)
    assert (claim.epoch, claim.confirmed) == (await scene.epoch(), False)
    assert claim.project_root == "/srv/1"
    now = await scene.workflow(subject)
    assert (now.status, now.started_at) == ("running", clock.wall)
    assert await scene.store.claim(claim.epoch) is None


async def test_the_oldest_workflow_that_waits_is_claimed_first(scene: Scene) -> None:
    resumed = await scene.subject(Kind.PAUSED)
    sessions = [await scene.session() for _ in range(3)]
    started = [
        (await scene.store.start(ME, session_id, "go", PLAN)).workflow_id
        for session_id in reversed(sessions)
    ]
    await scene.store.resume(ME, resumed.session_id, Caller("me"))
    await scene.store.cancel(ME, sessions[1], None, Caller("me"))
    claimed = [(await scene.claim()).workflow_id for _ in range(3)]
    assert claimed == [resumed.workflow_id, started[0], started[2]]
    assert await scene.store.claim(await scene.epoch()) is None


async def test_a_project_runs_no_more_workflows_at_once_than_it_allows(
    scene: Scene, backend: Backend
) -> None:
    store, epoch = scene.store, await scene.epoch()
    project = await store.open_project(ME, "/srv/shop", "shop")
    sessions = [backend.add_session(ME, project.id) for _ in range(4)]
    two_at_once = Plan((BUILD,), max_parallel=2)
    for session_id in sessions:
        await store.start(ME, session_id, "go", two_at_once)
    elsewhere = await scene.session()
    await store.start(ME, elsewhere, "go", two_at_once)
    first, second, third = [await scene.claim() for _ in range(3)]
    assert [first.session_id, second.session_id, third.session_id] == [*sessions[:2], elsewhere]
    assert await store.claim(epoch) is None
    await store.cancel(ME, sessions[0], None, Caller("me"))
    assert await store.claim(epoch) is None, "what is being killed still takes its place"
    assert await store.stopped(epoch, first.workflow_id, RECEIPT, [])
    assert (await scene.claim()).session_id == sessions[2]
    assert await store.pause(second, "Deploy it?")
    assert (await scene.claim()).session_id == sessions[3]
    gate = (await store.session(ME, sessions[1])).pending_action
    assert gate is not None
    await store.confirm(ME, sessions[1], gate.action_id, Caller("me"))
    assert await store.claim(epoch) is None, "what comes back from a pause needs room, too"


async def test_time_since_the_start_and_since_the_last_output_is_measured_not_read_off_the_wall(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.RUNNING)
    clock.go_on(2000)
    clock.wall -= 3_600_000
    await scene.begin(subject)
    clock.go_on(1000)
    await scene.store.note(subject.claim, [Note("on my way")])
    now = await scene.workflow(subject)
    assert (now.elapsed_seconds, now.quiet_seconds) == (3.0, 1.0)
    await scene.store.note(subject.claim, [], wrote_output=True)
    clock.go_on(500)
    clock.wall += 7_200_000
    now = await scene.workflow(subject)
    assert (now.elapsed_seconds, now.quiet_seconds) == (3.5, 0.5)


# -- fencing ---------------------------------------------------------------------------------------

Verb = Callable[[SessionStore, Subject], Awaitable[object]]


def ticket_of(subject: Subject) -> StepTicket:
    return StepTicket(subject.workflow_id, 1, 1, subject.claim.epoch)


ON_RUNNING: dict[str, Verb] = {
    "begin_step": lambda s, x: s.begin_step(x.claim, 2, PROCESS),
    "step_started": lambda s, x: s.step_started(ticket_of(x), LEADER),
    "step_ended": lambda s, x: s.step_ended(ticket_of(x), "succeeded", 0),
    "advance": lambda s, x: s.advance(x.claim, 2),
    "note": lambda s, x: s.note(x.claim, [Note("n")], percent=5, wrote_output=True),
    "pause": lambda s, x: s.pause(x.claim, "Deploy it?"),
    "complete": lambda s, x: s.complete(x.claim, [Note("n")]),
    "fail": lambda s, x: s.fail(x.claim, BROKEN, [Note("n")]),
    "report_lost": lambda s, x: s.report_lost(x.claim.epoch, x.workflow_id, GONE, RECEIPT),
    "leave": lambda s, x: s.leave(x.claim.epoch),
}
ON_CANCELLING: dict[str, Verb] = {
    "stopped": lambda s, x: s.stopped(x.claim.epoch, x.workflow_id, RECEIPT, [Note("n")]),
    "stop_unverified": lambda s, x: s.stop_unverified(x.claim.epoch, x.workflow_id, RECEIPT),
    "note while cancelling": ON_RUNNING["note"],
    "report_lost while cancelling": ON_RUNNING["report_lost"],
    "step_ended while cancelling": ON_RUNNING["step_ended"],
}
OF_A_WORKER = {**ON_RUNNING, **ON_CANCELLING}


@pytest.mark.parametrize("verb", OF_A_WORKER)
async def test_a_worker_that_has_been_replaced_does_nothing_any_more(
    scene: Scene, other: SessionStore, verb: str
) -> None:
    store, stale = scene.store, await scene.subject(Kind.RUNNING, ONLY_DEPLOY)
    await scene.begin(stale)
    if verb in ON_CANCELLING:
        await store.cancel(ME, stale.session_id, None, Caller("me"))
    epoch = await other.take_over(PROCESS, "2")
    before = await scene.look(stale), await store.messages(ME, stale.session_id, MessageQuery())
    lost = await other.lost(epoch)
    assert not await OF_A_WORKER[verb](store, stale)
    assert before == (
        await scene.look(stale),
        await store.messages(ME, stale.session_id, MessageQuery()),
    )
    assert await other.lost(epoch) == lost


@pytest.mark.parametrize("verb", OF_A_WORKER)
async def test_a_claim_from_before_a_pause_is_worth_nothing_any_more(
    scene: Scene, verb: str
) -> None:
    store, stale = scene.store, await scene.subject(Kind.RESUMED)
    before = await scene.look(stale), await store.messages(ME, stale.session_id, MessageQuery())
    assert not await OF_A_WORKER[verb](store, stale)
    assert before == (
        await scene.look(stale),
        await store.messages(ME, stale.session_id, MessageQuery()),
    )


async def test_a_replaced_worker_gets_no_work(scene: Scene, other: SessionStore) -> None:
    stale = await scene.epoch()
    current = await other.take_over(PROCESS, "2")
    subject = await scene.subject(Kind.PENDING)
    assert await scene.store.claim(stale) is None
    assert await scene.store.claim(current + 1) is None
    claim = await other.claim(current)
    assert claim is not None
    assert claim.workflow_id == subject.workflow_id


@pytest.mark.parametrize("kind", ONCE_HELD)
async def test_no_step_begins_unless_its_workflow_is_running_under_the_claim(
    scene: Scene, kind: Kind
) -> None:
    subject = await scene.subject(kind)
    ticket = await scene.store.begin_step(subject.claim, 1, PROCESS)
    assert (ticket is not None) == (kind is Kind.RUNNING)
    assert (await scene.workflow(subject)).deploy == "not_started"


async def test_no_step_begins_at_another_position_or_in_another_epoch(scene: Scene) -> None:
    subject = await scene.subject(Kind.RUNNING)
    claim = subject.claim
    for wrong in (
        replace(claim, position=2),
        replace(claim, epoch=claim.epoch + 1),
        replace(claim, epoch=claim.epoch - 1),
        replace(claim, workflow_id=NOBODY_KNOWS),
    ):
        assert await scene.store.begin_step(wrong, 1, PROCESS) is None
    assert await scene.store.begin_step(claim, 1, PROCESS) == StepTicket(
        claim.workflow_id, 1, 1, claim.epoch
    )


@pytest.mark.parametrize("kind", ONCE_HELD)
async def test_only_what_runs_can_complete_fail_pause_or_advance(scene: Scene, kind: Kind) -> None:
    store = scene.store
    for verb in ("complete", "fail", "pause", "advance"):
        subject = await scene.subject(kind)
        done = await ON_RUNNING[verb](store, subject)
        assert done == (kind is Kind.RUNNING), verb
        if (await scene.look(subject)).status == "running":
            await store.cancel(ME, subject.session_id, None, Caller("me"))


@pytest.mark.parametrize("kind", ONCE_HELD)
async def test_only_what_is_cancelling_can_be_stopped(scene: Scene, kind: Kind) -> None:
    subject = await scene.subject(kind)
    before = await scene.look(subject)
    for verb in ("stop_unverified", "stopped"):
        done = await ON_CANCELLING[verb](scene.store, subject)
        assert done == (kind is Kind.CANCELLING), verb
    assert ((await scene.look(subject)) == before) == (kind is not Kind.CANCELLING)


# -- steps -----------------------------------------------------------------------------------------


async def test_a_workflow_goes_on_step_by_step(scene: Scene) -> None:
    store, subject = scene.store, await scene.subject(Kind.RUNNING)
    await store.step_ended(await scene.begin(subject), "failed", 1)
    await store.note(subject.claim, [], percent=40, progress="Bundling")
    now = await scene.workflow(subject)
    assert (now.step_percent, now.step_message) == (40, "Bundling")
    await store.step_ended(await scene.begin(subject, 2), "succeeded", 0)
    assert (await scene.workflow(subject)).step_percent is None, "a new attempt starts over"
    assert await store.steps_done(ME, subject.session_id) == ["build"]
    await store.note(subject.claim, [], percent=100)
    assert await store.advance(subject.claim, 2)
    now = await scene.workflow(subject)
    assert (now.position, now.step, now.step_percent, now.step_message) == (2, "deploy", None, None)
    second = replace(subject, maybe_claim=replace(subject.claim, position=2))
    await store.step_ended(await scene.begin(second), "succeeded", 0)
    assert await store.advance(second.claim, 3)
    assert await store.complete(second.claim, [Note("done", "success")])
    now = await scene.workflow(subject)
    assert (now.status, now.position, now.step) == ("completed", 3, None)
    assert await store.steps_done(ME, subject.session_id) == ["build", "deploy"]
    await store.start(ME, subject.session_id, "again", PLAN)
    assert await store.steps_done(ME, subject.session_id) == []


@pytest.mark.parametrize(
    ("outcomes", "deploy"),
    [
        ([], "not_started"),
        ([None], "interrupted"),
        (["failed"], "interrupted"),
        (["timed_out"], "interrupted"),
        (["succeeded"], "done"),
        (["failed", "succeeded"], "done"),
        (["failed", None], "interrupted"),
        (["failed", "failed"], "interrupted"),
        (["not_started"], "not_started"),
        (["failed", "not_started"], "interrupted"),
        (["failed", "not_started", "succeeded"], "done"),
        (["not_started", None], "interrupted"),
    ],
)
async def test_what_is_known_of_a_deploy_is_told_truly_and_kept_in_the_receipt(
    scene: Scene, outcomes: list[str | None], deploy: str
) -> None:
    store, subject = scene.store, await scene.subject(Kind.RUNNING, ONLY_DEPLOY)
    for attempt, outcome in enumerate(outcomes, 1):
        ticket = await scene.begin(subject, attempt)
        if outcome is not None:
            await store.step_ended(ticket, outcome, 0)
    assert (await scene.workflow(subject)).deploy == deploy
    await store.cancel(ME, subject.session_id, None, Caller("me"))
    lie = replace(RECEIPT, deploy=DeployState.NOT_STARTED if outcomes else DeployState.DONE)
    assert await store.stopped(subject.claim.epoch, subject.workflow_id, lie, [])
    now = await scene.workflow(subject)
    assert now.stopped is not None
    assert now.deploy == now.stopped.deploy == deploy


async def test_steps_that_deploy_nothing_do_not_count_as_a_deploy(scene: Scene) -> None:
    subject = await scene.subject(Kind.RUNNING)
    await scene.store.step_ended(await scene.begin(subject), "succeeded", 0)
    assert (await scene.workflow(subject)).deploy == "not_started"


async def test_how_a_step_ended_is_recorded_also_after_a_cancel(scene: Scene) -> None:
    store, subject = scene.store, await scene.subject(Kind.RUNNING, ONLY_DEPLOY)
    ticket = await scene.begin(subject)
    await store.cancel(ME, subject.session_id, None, Caller("me"))
    await store.step_ended(ticket, "succeeded", 0)
    assert (await scene.workflow(subject)).deploy == "done"
    await store.step_ended(ticket, "failed", 1)
    assert (await scene.workflow(subject)).deploy == "done", "an outcome is recorded once"
    assert await store.steps_done(ME, subject.session_id) == ["deploy"]


async def test_the_mark_of_an_attempt_is_unique_in_the_store(scene: Scene) -> None:
    cookies: list[str] = []
    for _ in range(2):
        subject = await scene.subject(Kind.RUNNING, Plan((PlannedStep("a", {}),)))
        cookies += [(await scene.begin(subject, attempt)).cookie for attempt in (1, 2)]
    assert len(set(cookies)) == 4
