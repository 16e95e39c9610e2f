"""The contract of a store: what callers decide about a workflow, from every situation."""

from __future__ import annotations

import pytest

from bilt_mcp.state import (
    BiltError,
    Caller,
    CannotCancel,
    CannotPause,
    CannotResume,
    ConfirmationRequired,
    DeployState,
    MessageQuery,
    NothingToConfirm,
    Plan,
    PlannedStep,
    SessionStore,
    Status,
    Stopped,
    WorkflowNotFound,
    iso,
)

from .store_contract import (
    BUILD,
    DEPLOY,
    ME,
    NOBODY_KNOWS,
    PLAN,
    PROCESS,
    RECEIPT,
    SOMEBODY_ELSE,
    Kind,
    ManualClock,
    Scene,
    Subject,
)

pytestmark = pytest.mark.anyio

NOTHING_KILLED = Stopped(True, 0, 0, 0.0, None, DeployState.NOT_STARTED)
AT_ONCE = [Kind.PENDING, Kind.PAUSED, Kind.GATED, Kind.RESUMED]
ENDED = [Kind.CANCELLED, Kind.COMPLETED, Kind.FAILED]


async def told(store: SessionStore, subject: Subject) -> list[str]:
    page = await store.messages(ME, subject.session_id, MessageQuery(after=0, limit=100))
    return [message.content for message in page.messages]


# -- cancel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", AT_ONCE)
async def test_what_nobody_holds_is_cancelled_at_once_with_a_verified_receipt(
    scene: Scene, clock: ManualClock, kind: Kind
) -> None:
    subject = await scene.subject(kind)
    clock.go_on(1000)
    answer = await scene.store.cancel(ME, subject.session_id, "too slow", Caller("Ann"))
    now = await scene.workflow(subject)
    assert answer.workflow == now
    assert not answer.joined
    assert (now.status, now.stopped) == ("cancelled", NOTHING_KILLED)
    assert now.finished_at == now.cancel_requested_at == clock.wall
    assert now.cancel_reason == "too slow"
    assert (await scene.look(subject)).pending_action is None
    last = (await told(scene.store, subject))[-1]
    assert "Ann" in last
    assert "too slow" in last


async def test_a_running_workflow_that_a_worker_holds_is_cancelled_when_it_has_stopped(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.RUNNING)
    answer = await scene.store.cancel(ME, subject.session_id, None, Caller("Ann"))
    assert not answer.joined
    now = answer.workflow
    assert (now.status, now.cancel_requested_at) == ("cancelling", clock.wall)
    assert (now.finished_at, now.stopped, now.cancel_reason) == (None, None, None)
    assert now.elapsed_seconds is now.quiet_seconds is None
    assert await scene.store.cancelling(subject.claim.epoch) == [subject.workflow_id]
    clock.go_on(250)
    assert await scene.store.stopped(subject.claim.epoch, subject.workflow_id, RECEIPT, [])
    now = await scene.workflow(subject)
    assert (now.status, now.finished_at) == ("cancelled", clock.wall)
    assert now.stopped == Stopped(True, 3, 0, 250, "build", DeployState.NOT_STARTED)
    assert await scene.store.cancelling(subject.claim.epoch) == []


async def test_a_second_cancel_joins_the_first_and_changes_nothing(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.CANCELLING)
    before, said = await scene.look(subject), await told(scene.store, subject)
    clock.go_on(1000)
    answer = await scene.store.cancel(ME, subject.session_id, "another reason", Caller("Bob"))
    assert answer.joined
    assert answer.workflow == before.workflow
    assert answer.workflow.cancel_reason == "no longer needed"
    assert await scene.look(subject) == before
    assert await told(scene.store, subject) == said


@pytest.mark.parametrize("kind", [Kind.PENDING, Kind.RUNNING, Kind.CANCELLING])
async def test_a_cancel_that_comes_again_answers_for_the_same_workflow_and_hits_no_other(
    scene: Scene, kind: Kind
) -> None:
    subject = await scene.subject(kind)
    first = await scene.store.cancel(ME, subject.session_id, "why", Caller("me"), "a key")
    if kind is not Kind.PENDING:
        await scene.store.stopped(subject.claim.epoch, subject.workflow_id, RECEIPT, [])
    await scene.store.start(ME, subject.session_id, "again", PLAN)
    before = await scene.look(subject)
    again = await scene.store.cancel(ME, subject.session_id, "why", Caller("me"), "a key")
    assert (again.workflow.id, again.workflow.status) == (first.workflow.id, Status.CANCELLED)
    assert await scene.look(subject) == before
    other = await scene.store.cancel(ME, subject.session_id, "why", Caller("me"), "another key")
    assert other.workflow.id != first.workflow.id


async def test_a_cancel_that_names_a_workflow_hits_no_other(scene: Scene) -> None:
    over = await scene.subject(Kind.COMPLETED)
    given = (ME, over.session_id, "why", Caller("me"))
    newest = await scene.store.start(ME, over.session_id, "again", PLAN)
    before = await scene.look(over)
    with pytest.raises(CannotCancel) as refused:
        await scene.store.cancel(*given, workflow_id=over.workflow_id)
    assert refused.value.details["current_status"] == "completed"
    with pytest.raises(WorkflowNotFound):
        await scene.store.cancel(*given, workflow_id=NOBODY_KNOWS)
    assert await scene.look(over) == before
    done = await scene.store.cancel(*given, workflow_id=newest.workflow_id)
    assert (done.workflow.id, done.workflow.status) == (newest.workflow_id, Status.CANCELLED)


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        (Kind.COMPLETED, "completed", "Workflow has already completed"),
        (Kind.FAILED, "failed", "Workflow has already failed"),
        (Kind.CANCELLED, "cancelled", "Workflow is already cancelled"),
        (Kind.IDLE, "idle", "Session has no workflow to cancel"),
    ],
)
async def test_what_is_over_cannot_be_cancelled_and_the_error_says_so_in_the_documented_words(
    scene: Scene, kind: Kind, status: str, words: str
) -> None:
    subject = await scene.subject(kind)
    before = await scene.look(subject)
    with pytest.raises(CannotCancel) as refused:
        await scene.store.cancel(ME, subject.session_id, "why", Caller("me"))
    assert refused.value.error == "Cannot cancel workflow"
    expected = {"current_status": status, "message": words}
    if before.workflow is not None:
        assert before.workflow.finished_at is not None
        expected["workflow_id"] = subject.workflow_id
        expected["finished_at"] = iso(before.workflow.finished_at)
    assert dict(refused.value.details) == expected
    assert await scene.look(subject) == before


@pytest.mark.parametrize("kind", [*AT_ONCE, Kind.RUNNING])
async def test_after_a_cancel_nothing_brings_the_workflow_back(scene: Scene, kind: Kind) -> None:
    store, subject = scene.store, await scene.subject(kind)
    await store.cancel(ME, subject.session_id, None, Caller("me"))
    before, said = await scene.look(subject), await told(store, subject)
    epoch = await scene.epoch()
    assert await store.claim(epoch) is None
    if kind is not Kind.PENDING:
        claim = subject.claim
        assert await store.begin_step(claim, 1, PROCESS) is None
        assert not await store.advance(claim, 2)
        assert not await store.pause(claim, "Deploy it?")
        assert not await store.complete(claim, [])
    with pytest.raises(CannotResume):
        await store.resume(ME, subject.session_id, Caller("me"))
    with pytest.raises(CannotPause):
        await store.request_pause(ME, subject.session_id, Caller("me"))
    if kind is Kind.GATED:
        for answer in (store.confirm, store.decline):
            with pytest.raises(NothingToConfirm):
                await answer(ME, subject.session_id, subject.action_id, Caller("me"))
    assert await scene.look(subject) == before
    assert await told(store, subject) == said


@pytest.mark.parametrize("kind", ENDED)
async def test_a_session_stays_usable_after_its_workflow_ended(scene: Scene, kind: Kind) -> None:
    subject = await scene.subject(kind)
    await scene.store.start(ME, subject.session_id, "again", Plan((BUILD,)))
    claim = await scene.claim()
    assert (claim.session_id, claim.message, claim.position) == (subject.session_id, "again", 1)
    assert await scene.store.complete(claim, [])
    assert (await scene.look(subject)).status == "completed"


# -- pause and resume ------------------------------------------------------------------------------


async def test_a_requested_pause_happens_before_the_next_step_and_a_resume_ends_it(
    scene: Scene,
) -> None:
    store, subject = scene.store, await scene.subject(Kind.RUNNING)
    assert not await store.pause(subject.claim, None), "nobody has asked for a pause"
    asked = await store.request_pause(ME, subject.session_id, Caller("Ann"))
    assert (asked.status, asked.pause_requested) == ("running", True)
    assert await store.pause(subject.claim, None)
    paused = await scene.look(subject)
    assert (paused.status, paused.pending_action) == ("paused", None)
    assert paused.workflow is not None
    assert not paused.workflow.pause_requested
    assert paused.workflow.elapsed_seconds is None
    assert await store.claim(subject.claim.epoch) is None
    resumed = await store.resume(ME, subject.session_id, Caller("Bob"))
    assert (resumed.status, resumed.pause_requested) == ("running", False)
    claim = await scene.claim()
    assert (claim.workflow_id, claim.position) == (subject.workflow_id, 1)
    assert not claim.confirmed
    said = await told(store, subject)
    assert any("Ann" in words for words in said)
    assert "Bob" in said[-1]


async def test_a_pause_can_be_asked_for_before_a_worker_came(scene: Scene) -> None:
    subject = await scene.subject(Kind.PENDING)
    asked = await scene.store.request_pause(ME, subject.session_id, Caller("me"))
    assert (asked.status, asked.pause_requested) == ("pending", True)
    claim = await scene.claim()
    assert (await scene.workflow(subject)).pause_requested
    assert await scene.store.pause(claim, None)


NOT_PAUSABLE = [Kind.IDLE, Kind.PAUSED, Kind.GATED, Kind.CANCELLING, *ENDED]
NOT_RESUMABLE = [Kind.IDLE, Kind.PENDING, Kind.RUNNING, Kind.RESUMED, Kind.CANCELLING, *ENDED]


async def refusal(scene: Scene, subject: Subject, verb: str) -> BiltError:
    """The error of a verb that must change nothing."""
    before, said = await scene.look(subject), await told(scene.store, subject)
    ask = scene.store.request_pause if verb == "pause" else scene.store.resume
    with pytest.raises(BiltError) as refused:
        await ask(ME, subject.session_id, Caller("me"))
    assert await scene.look(subject) == before
    assert await told(scene.store, subject) == said
    return refused.value


@pytest.mark.parametrize("kind", NOT_PAUSABLE)
async def test_only_what_is_pending_or_running_can_be_paused(scene: Scene, kind: Kind) -> None:
    subject = await scene.subject(kind)
    error = await refusal(scene, subject, "pause")
    assert (type(error), error.error) == (CannotPause, "Cannot pause workflow")
    assert error.details["current_status"] == (await scene.look(subject)).status


@pytest.mark.parametrize("kind", NOT_RESUMABLE)
async def test_only_what_is_paused_can_be_resumed(scene: Scene, kind: Kind) -> None:
    subject = await scene.subject(kind)
    error = await refusal(scene, subject, "resume")
    assert (type(error), error.error) == (CannotResume, "Cannot resume workflow")
    assert error.details["current_status"] == (await scene.look(subject)).status


async def test_resuming_is_not_approving(scene: Scene) -> None:
    subject = await scene.subject(Kind.GATED)
    error = await refusal(scene, subject, "resume")
    assert (type(error), error.error) == (ConfirmationRequired, "Confirmation required")
    assert error.details["action_id"] == subject.action_id


# -- gates -----------------------------------------------------------------------------------------


async def test_a_gate_asks_its_question_and_lets_go_of_the_workflow(scene: Scene) -> None:
    subject = await scene.subject(Kind.GATED)
    session = await scene.look(subject)
    gate = session.pending_action
    assert gate is not None
    assert (gate.step, gate.message, gate.expires_at) == ("build", "Deploy it?", None)
    assert not await scene.store.waiting_for_worker()
    assert await scene.store.claim(await scene.epoch()) is None


async def test_a_confirmed_step_comes_back_confirmed_and_only_that_step(scene: Scene) -> None:
    store, subject = scene.store, await scene.subject(Kind.GATED)
    confirmed = await store.confirm(ME, subject.session_id, subject.action_id, Caller("Ann"))
    assert confirmed.status == "running"
    assert (await scene.look(subject)).pending_action is None
    assert "Ann" in (await told(store, subject))[-1]
    claim = await scene.claim()
    assert claim.confirmed
    assert await store.advance(claim, 2)
    await store.request_pause(ME, subject.session_id, Caller("me"))
    assert await store.pause(claim, None)
    await store.resume(ME, subject.session_id, Caller("me"))
    assert not (await scene.claim()).confirmed


async def test_a_declined_step_cancels_the_workflow(scene: Scene, clock: ManualClock) -> None:
    subject = await scene.subject(Kind.GATED)
    clock.go_on(1000)
    declined = await scene.store.decline(ME, subject.session_id, subject.action_id, Caller("Ann"))
    assert (declined.status, declined.deploy) == ("cancelled", "not_started")
    assert declined.finished_at == declined.cancel_requested_at == clock.wall
    assert declined.stopped == Stopped(True, 0, 0, 0.0, "build", DeployState.NOT_STARTED)
    assert (await scene.look(subject)).pending_action is None
    assert "Ann" in (await told(scene.store, subject))[-1]
    with pytest.raises(CannotCancel, match="Workflow is already cancelled"):
        await scene.store.cancel(ME, subject.session_id, None, Caller("me"))


@pytest.mark.parametrize(
    ("steps", "position", "step"), [([BUILD], 2, None), ([BUILD, DEPLOY], 2, "deploy")]
)
async def test_a_step_that_may_be_skipped_is_left_out_when_declined(
    scene: Scene, steps: list[PlannedStep], position: int, step: str | None
) -> None:
    optional = PlannedStep(steps[0].name, {}, confirm="Really?", on_decline="skip")
    subject = await scene.subject(Kind.GATED, Plan((optional, *steps[1:])))
    skipped = await scene.store.decline(ME, subject.session_id, subject.action_id, Caller("Ann"))
    assert (skipped.status, skipped.position, skipped.step) == ("running", position, step)
    claim = await scene.claim()
    assert (claim.position, claim.confirmed) == (position, False)
    assert "Ann" in (await told(scene.store, subject))[-1]


@pytest.mark.parametrize("kind", Kind)
async def test_only_the_open_gate_can_be_answered(scene: Scene, kind: Kind) -> None:
    subject = await scene.subject(kind)
    before, said = await scene.look(subject), None
    if kind is not Kind.IDLE:
        said = await told(scene.store, subject)
    for answer in (scene.store.confirm, scene.store.decline):
        with pytest.raises(NothingToConfirm) as refused:
            await answer(ME, subject.session_id, NOBODY_KNOWS, Caller("me"))
        assert refused.value.error == "Nothing to confirm"
        assert refused.value.details["current_status"] == before.status
    assert await scene.look(subject) == before
    if said is not None:
        assert await told(scene.store, subject) == said


async def test_an_answer_to_an_earlier_gate_does_not_open_the_next_one(scene: Scene) -> None:
    store, subject = scene.store, await scene.subject(Kind.GATED)
    await store.confirm(ME, subject.session_id, subject.action_id, Caller("me"))
    claim = await scene.claim()
    assert await store.advance(claim, 2)
    assert await store.pause(claim, "And this?")
    for answer in (store.confirm, store.decline):
        with pytest.raises(NothingToConfirm):
            await answer(ME, subject.session_id, subject.action_id, Caller("me"))
    assert (await scene.look(subject)).status == "paused"


async def test_a_workflow_is_found_by_its_own_id_also_when_it_is_not_the_newest(
    scene: Scene,
) -> None:
    old = await scene.subject(Kind.COMPLETED)
    before = await scene.store.workflow(ME, old.workflow_id)
    new = await scene.store.start(ME, old.session_id, "again", PLAN)
    assert (before.id, before.status) == (old.workflow_id, Status.COMPLETED)
    assert await scene.store.workflow(ME, old.workflow_id) == before
    assert (await scene.store.workflow(ME, new.workflow_id)).status is Status.PENDING
    words: set[str] = set()
    for account, workflow_id in ((SOMEBODY_ELSE, old.workflow_id), (ME, NOBODY_KNOWS)):
        with pytest.raises(WorkflowNotFound) as refused:
            await scene.store.workflow(account, workflow_id)
        words.add(str(refused.value.details))
    assert len(words) == 1


async def test_how_long_a_cancel_took_does_not_depend_on_the_wall_clock(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.CANCELLING)
    clock.go_on(40)
    clock.wall += 3_600_000
    assert await scene.store.stopped(subject.claim.epoch, subject.workflow_id, RECEIPT, [])
    workflow = await scene.workflow(subject)
    assert workflow.stopped is not None
    assert workflow.stopped.took_ms == 40.0
