"""The contract of a store: how a workflow that a worker holds ends, also when the worker is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bilt_mcp.state import (
    DeployState,
    LostStep,
    LostWorkflow,
    MessageQuery,
    Note,
    Plan,
    ProcessRecord,
    SessionStore,
    Status,
    Stopped,
)

from .store_contract import (
    BROKEN,
    DEPLOY,
    GONE,
    ME,
    NOBODY_KNOWS,
    PROCESS,
    RECEIPT,
    WITH_WORKFLOW,
    Kind,
    ManualClock,
    Scene,
)

pytestmark = pytest.mark.anyio

LEADER = ProcessRecord("boot", 4712, 100)
ONLY_DEPLOY = Plan((DEPLOY,))


async def test_a_failure_says_which_step_and_why(scene: Scene, clock: ManualClock) -> None:
    subject = await scene.subject(Kind.RUNNING)
    clock.go_on(10)
    assert await scene.store.fail(subject.claim, BROKEN, [Note("sorry", "error", "build")])
    now = await scene.workflow(subject)
    assert (now.status, now.failure, now.finished_at) == ("failed", BROKEN, clock.wall)
    page = await scene.store.messages(ME, subject.session_id, MessageQuery(limit=1))
    assert (page.messages[0].content, page.messages[0].step) == ("sorry", "build")


async def test_an_unverified_stop_is_told_and_the_kill_goes_on(scene: Scene) -> None:
    store, subject = scene.store, await scene.subject(Kind.CANCELLING)
    so_far = Stopped(False, 2, 1, 10_000.0, "build", DeployState.NOT_STARTED)
    assert await store.stop_unverified(subject.claim.epoch, subject.workflow_id, so_far)
    now = await scene.workflow(subject)
    assert (now.status, now.stopped, now.finished_at) == ("cancelling", so_far, None)
    assert await store.cancelling(subject.claim.epoch) == [subject.workflow_id]
    assert await store.stopped(subject.claim.epoch, subject.workflow_id, RECEIPT, [Note("dead")])
    now = await scene.workflow(subject)
    assert now.status == "cancelled"
    assert now.stopped is not None
    assert now.stopped.verified


async def test_the_status_of_a_workflow_that_never_was_is_none(store: SessionStore) -> None:
    assert await store.workflow_status(NOBODY_KNOWS) is None


# -- what a dead worker left -----------------------------------------------------------------------


async def test_the_next_worker_finds_what_the_last_one_held_and_how_to_find_its_processes(
    scene: Scene, other: SessionStore
) -> None:
    store = scene.store
    subjects = {
        kind: await scene.subject(kind)
        for kind in Kind
        if kind not in (Kind.IDLE, Kind.PENDING, Kind.RESUMED)
    }
    running, cancelling = subjects[Kind.RUNNING], subjects[Kind.CANCELLING]
    await store.step_ended(await scene.begin(running), "failed", 1)
    ticket = await scene.begin(running, 2)
    await store.step_started(ticket, LEADER)
    await scene.subject(Kind.RESUMED)
    epoch = await other.take_over(PROCESS, "2")
    assert await other.lost(epoch) == [
        LostWorkflow(
            running.workflow_id,
            running.session_id,
            Status.RUNNING,
            "build",
            [LostStep(ticket, PROCESS, LEADER)],
        ),
        LostWorkflow(cancelling.workflow_id, cancelling.session_id, Status.CANCELLING, "build", []),
    ]
    assert await store.lost(await scene.epoch()) == []


async def test_a_lost_workflow_has_failed_unless_it_was_being_cancelled(
    scene: Scene, other: SessionStore
) -> None:
    running = await scene.subject(Kind.RUNNING, ONLY_DEPLOY)
    ticket = await scene.begin(running)
    cancelling = await scene.subject(Kind.CANCELLING)
    epoch = await other.take_over(PROCESS, "2")
    for subject in (running, cancelling):
        assert await other.report_lost(epoch, subject.workflow_id, GONE, RECEIPT)
        assert not await other.report_lost(epoch, subject.workflow_id, GONE, RECEIPT)
    failed, cancelled = await scene.workflow(running), await scene.workflow(cancelling)
    assert (failed.status, failed.failure, failed.stopped) == ("failed", GONE, None)
    assert failed.deploy == "interrupted"
    assert (cancelled.status, cancelled.failure) == ("cancelled", None)
    assert cancelled.stopped is not None
    assert cancelled.stopped.processes_killed == RECEIPT.processes_killed
    assert await other.lost(epoch) == []
    await other.step_ended(replace(ticket, epoch=epoch), "succeeded", 0)
    await other.step_ended(ticket, "succeeded", 0)
    assert (await scene.workflow(running)).deploy == "interrupted"
    page = await other.messages(ME, running.session_id, MessageQuery(limit=1))
    assert (page.messages[0].variant, page.messages[0].content) == ("error", GONE.message)


@pytest.mark.parametrize("kind", WITH_WORKFLOW)
async def test_only_what_an_earlier_worker_held_can_be_reported_lost(
    scene: Scene, other: SessionStore, kind: Kind
) -> None:
    subject = await scene.subject(kind)
    current = await scene.epoch()
    before = await scene.look(subject)
    assert not await scene.store.report_lost(current, subject.workflow_id, GONE, RECEIPT)
    epoch = await other.take_over(PROCESS, "2")
    reported = await other.report_lost(epoch, subject.workflow_id, GONE, RECEIPT)
    assert reported == (kind in (Kind.RUNNING, Kind.CANCELLING))
    if not reported:
        assert await scene.look(subject) == before
