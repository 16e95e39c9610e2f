"""The contract of a store: a session's revision rises whenever `session()` answers something else.

Who waits for news waits for the revision, so a change without one would never be noticed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from bilt_mcp.state import (
    BiltError,
    Caller,
    DeployState,
    MessageQuery,
    Note,
    Plan,
    Session,
    StepTicket,
    Stopped,
)

from .store_contract import (
    BROKEN,
    DEPLOY,
    GONE,
    ME,
    NOBODY_KNOWS,
    ONCE_HELD,
    PLAN,
    PROCESS,
    RECEIPT,
    WITH_WORKFLOW,
    Kind,
    ManualClock,
    Scene,
    Subject,
    still,
)

pytestmark = pytest.mark.anyio

Verb = Callable[[Scene, Subject], Awaitable[object]]
UNVERIFIED = Stopped(False, 2, 1, 10_000.0, "deploy", DeployState.NOT_STARTED)
DEPLOY_TWICE = Plan((DEPLOY, replace(DEPLOY, name="again", deploy=True)))


def ticket(x: Subject) -> StepTicket:
    return StepTicket(x.workflow_id, 1, 1, x.claim.epoch)


async def take_over_and_report(scene: Scene, x: Subject) -> object:
    epoch = await scene.store.take_over(PROCESS, "2")
    return await scene.store.report_lost(epoch, x.workflow_id, GONE, RECEIPT)


async def claim(scene: Scene, _: Subject) -> object:
    return await scene.store.claim(await scene.epoch())


VERBS: dict[str, Verb] = {
    "start": lambda s, x: s.store.start(ME, x.session_id, "go", PLAN),
    "start with a known key": lambda s, x: s.store.start(ME, x.session_id, "go", PLAN, key="k"),
    "cancel": lambda s, x: s.store.cancel(ME, x.session_id, "why", Caller("me")),
    "request_pause": lambda s, x: s.store.request_pause(ME, x.session_id, Caller("me")),
    "resume": lambda s, x: s.store.resume(ME, x.session_id, Caller("me")),
    "confirm": lambda s, x: s.store.confirm(
        ME, x.session_id, x.maybe_action_id or NOBODY_KNOWS, Caller("me")
    ),
    "decline": lambda s, x: s.store.decline(
        ME, x.session_id, x.maybe_action_id or NOBODY_KNOWS, Caller("me")
    ),
    "claim": claim,
    "report_lost": take_over_and_report,
}
WITH_CLAIM: dict[str, Verb] = {
    "begin_step": lambda s, x: s.store.begin_step(x.claim, 2, PROCESS),
    "step_started": lambda s, x: s.store.step_started(ticket(x), PROCESS),
    "step_ended well": lambda s, x: s.store.step_ended(ticket(x), "succeeded", 0),
    "step_ended badly": lambda s, x: s.store.step_ended(ticket(x), "failed", 1),
    "advance": lambda s, x: s.store.advance(x.claim, 2),
    "note with percent": lambda s, x: s.store.note(x.claim, [], percent=40),
    "note with progress": lambda s, x: s.store.note(x.claim, [], progress="Bundling"),
    "pause": lambda s, x: s.store.pause(x.claim, "Deploy it?"),
    "complete": lambda s, x: s.store.complete(x.claim, []),
    "fail": lambda s, x: s.store.fail(x.claim, BROKEN, []),
    "stopped": lambda s, x: s.store.stopped(x.claim.epoch, x.workflow_id, RECEIPT, []),
    "stop_unverified": lambda s, x: s.store.stop_unverified(
        x.claim.epoch, x.workflow_id, UNVERIFIED
    ),
}


async def subject_with_a_begun_deploy(scene: Scene, kind: Kind) -> Subject:
    """Such a subject; where a step can be under way, its deploy is."""
    if kind not in (Kind.RUNNING, Kind.CANCELLING):
        return await scene.subject(kind, DEPLOY_TWICE)
    subject = await scene.subject(Kind.RUNNING, DEPLOY_TWICE)
    assert await scene.store.begin_step(subject.claim, 1, PROCESS)
    if kind is Kind.CANCELLING:
        await scene.store.cancel(ME, subject.session_id, None, Caller("me"))
    return subject


def told(session: Session) -> Session:
    return replace(still(session), revision=0)


CASES = [
    (kind, verb)
    for kind in Kind
    for verb in VERBS | WITH_CLAIM
    if not (verb in WITH_CLAIM and kind not in ONCE_HELD)
    and not (verb == "report_lost" and kind is Kind.IDLE)
]


@pytest.mark.parametrize(("kind", "verb"), CASES)
async def test_no_verb_changes_a_session_without_raising_its_revision(
    scene: Scene, clock: ManualClock, kind: Kind, verb: str
) -> None:
    subject = await subject_with_a_begun_deploy(scene, kind)
    before = await scene.look(subject)
    clock.go_on(1000)
    with contextlib.suppress(BiltError):
        await (VERBS | WITH_CLAIM)[verb](scene, subject)
    after = await scene.look(subject)
    assert after.revision >= before.revision
    if told(after) != told(before):
        assert after.revision > before.revision


CHANGES = [
    (Kind.IDLE, "start"),
    (Kind.PENDING, "cancel"),
    (Kind.PENDING, "request_pause"),
    (Kind.PENDING, "claim"),
    (Kind.RUNNING, "cancel"),
    (Kind.RUNNING, "request_pause"),
    (Kind.RUNNING, "report_lost"),
    (Kind.RUNNING, "step_ended well"),
    (Kind.RUNNING, "advance"),
    (Kind.RUNNING, "note with percent"),
    (Kind.RUNNING, "note with progress"),
    (Kind.RUNNING, "pause"),
    (Kind.RUNNING, "complete"),
    (Kind.RUNNING, "fail"),
    (Kind.RESUMED, "cancel"),
    (Kind.PAUSED, "resume"),
    (Kind.PAUSED, "cancel"),
    (Kind.GATED, "confirm"),
    (Kind.GATED, "decline"),
    (Kind.GATED, "cancel"),
    (Kind.CANCELLING, "step_ended well"),
    (Kind.CANCELLING, "stopped"),
    (Kind.CANCELLING, "stop_unverified"),
    (Kind.CANCELLING, "report_lost"),
]


@pytest.mark.parametrize(("kind", "verb"), CHANGES)
async def test_these_verbs_change_what_a_session_answers(
    scene: Scene, kind: Kind, verb: str
) -> None:
    subject = await subject_with_a_begun_deploy(scene, kind)
    before = await scene.look(subject)
    await (VERBS | WITH_CLAIM)[verb](scene, subject)
    after = await scene.look(subject)
    assert told(after) != told(before)
    assert after.revision > before.revision


async def test_a_begun_deploy_is_news(scene: Scene) -> None:
    subject = await scene.subject(Kind.RUNNING, DEPLOY_TWICE)
    before = await scene.look(subject)
    assert await scene.store.begin_step(subject.claim, 1, PROCESS)
    after = await scene.look(subject)
    assert after.workflow is not None
    assert after.workflow.deploy == "interrupted"
    assert after.revision > before.revision


@pytest.mark.parametrize("kind", [Kind.RUNNING, Kind.CANCELLING])
async def test_plain_output_is_no_change(scene: Scene, clock: ManualClock, kind: Kind) -> None:
    subject = await scene.subject(kind)
    before = await scene.look(subject)
    clock.go_on(1000)
    await scene.store.note(subject.claim, [Note("line")], wrote_output=True)
    assert still(await scene.look(subject)) == still(before)
    page = await scene.store.messages(ME, subject.session_id, MessageQuery(limit=1))
    assert page.messages[0].content == "line"


@pytest.mark.parametrize("kind", WITH_WORKFLOW)
async def test_looking_and_losing_change_nothing(
    scene: Scene, clock: ManualClock, kind: Kind
) -> None:
    store, subject = scene.store, await scene.subject(kind)
    before = await scene.look(subject)
    clock.go_on(1000)
    await store.messages(ME, subject.session_id, MessageQuery())
    await store.steps_done(ME, subject.session_id)
    await store.first_answer(ME, subject.session_id, "go", "new")
    await store.latest_session(ME, before.project_id)
    await store.workflow_status(subject.workflow_id)
    await store.cancelling(await scene.epoch())
    await store.waiting_for_worker()
    await store.leave(await scene.epoch())
    for answer in (store.confirm, store.decline):
        with pytest.raises(BiltError):
            await answer(ME, subject.session_id, NOBODY_KNOWS, Caller("me"))
    assert still(await scene.look(subject)) == still(before)


async def test_the_time_of_the_last_change_never_goes_back(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.PENDING)
    before = await scene.look(subject)
    clock.wall -= 3_600_000
    await scene.claim()
    after = await scene.look(subject)
    assert after.revision > before.revision
    assert after.updated_at == before.updated_at
