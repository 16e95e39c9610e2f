"""Looking back: what a workflow's steps did, and ids by how they begin. For every implementation of the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bilt_mcp.state import Caller, SessionStore, WorkflowNotFound

from .store_contract import (
    ME,
    NOBODY_KNOWS,
    PLAN,
    SOMEBODY_ELSE,
    Backend,
    Kind,
    ManualClock,
    Scene,
    still,
)

pytestmark = pytest.mark.anyio


async def test_a_history_has_the_plan_and_every_attempt_in_the_order_in_which_they_began(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.RUNNING)
    began = clock.now()
    first = await scene.begin(subject)
    clock.go_on(1000)
    await scene.store.step_ended(first, "failed", 2)
    second = await scene.begin(subject, attempt=2)
    history = await scene.store.history(ME, subject.workflow_id)
    assert history.plan == PLAN
    assert history.workflow.id == subject.workflow_id
    session = await scene.look(subject)
    assert history.project_id == session.project_id
    assert replace(session, workflow=history.workflow) == session
    one, two = history.runs_of(1)
    assert (one.name, one.attempt, one.outcome, one.exit_code) == ("build", 1, "failed", 2)
    assert (one.started_at, one.finished_at) == (began, began + 1000)
    assert (two.attempt, two.outcome, two.finished_at) == (2, None, None)
    assert history.runs_of(2) == []
    await scene.store.step_ended(second, "succeeded", 0)
    later = await scene.store.history(ME, subject.workflow_id)
    assert [run.outcome for run in later.runs] == ["failed", "succeeded"]


async def test_a_history_tells_who_decided_what_about_this_workflow_alone(scene: Scene) -> None:
    subject = await scene.subject(Kind.GATED)
    await scene.store.cancel(ME, subject.session_id, "enough", Caller("an editor", "mcp", "ann"))
    again = await scene.store.start(ME, subject.session_id, "again", PLAN)
    started, cancelled = (await scene.store.history(ME, subject.workflow_id)).decisions
    assert (started.action, cancelled.action) == ("start", "cancel")
    assert cancelled.caller == Caller("an editor", "mcp", "ann")
    assert (cancelled.reason, cancelled.workflow_id) == ("enough", subject.workflow_id)
    later = (await scene.store.history(ME, again.workflow_id)).decisions
    assert [entry.action for entry in later] == ["start"]
    everything = await scene.store.audit(ME, subject.session_id)
    assert everything == [started, cancelled, *later]


async def test_a_foreign_history_is_as_unknown_as_one_that_never_was(scene: Scene) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    told: list[str] = []
    for account, workflow_id in ((SOMEBODY_ELSE, subject.workflow_id), (ME, NOBODY_KNOWS)):
        with pytest.raises(WorkflowNotFound) as refused:
            await scene.store.history(account, workflow_id)
        told.append(refused.value.message)
    assert told[0] == told[1]


async def test_ids_are_found_by_how_they_begin_newest_first_and_only_ones_own(
    scene: Scene, store: SessionStore
) -> None:
    mine = [(await scene.subject(Kind.COMPLETED)) for _ in range(3)]
    foreign = await scene.session(SOMEBODY_ELSE)
    newest_first = [subject.session_id for subject in reversed(mine)]
    assert await store.newest_ids(ME, "session") == newest_first
    assert await store.newest_ids(ME, "session", limit=1) == newest_first[:1]
    assert await store.newest_ids(SOMEBODY_ELSE, "session") == [foreign]
    assert await store.newest_ids(ME, "session", prefix=foreign) == []
    workflows = [subject.workflow_id for subject in reversed(mine)]
    assert await store.newest_ids(ME, "workflow") == workflows
    for found, kind in ((newest_first, "session"), (workflows, "workflow")):
        for wanted in found:
            for length in (1, 8, 9, 36):
                prefix = wanted[:length]
                expected = [other for other in found if other.startswith(prefix)]
                assert await store.newest_ids(ME, kind, prefix=prefix) == expected  # type: ignore[arg-type]
    assert await store.newest_ids(SOMEBODY_ELSE, "workflow") == []
    assert await store.newest_ids(ME, "session", prefix="%") == []


async def test_ids_are_found_within_one_session_or_one_project(
    scene: Scene, store: SessionStore, backend: Backend
) -> None:
    one, two = [await scene.subject(Kind.COMPLETED) for _ in range(2)]
    again = await store.start(ME, one.session_id, "again", PLAN)
    within = await store.newest_ids(ME, "workflow", session_id=one.session_id)
    assert within == [again.workflow_id, one.workflow_id]
    assert await store.newest_ids(SOMEBODY_ELSE, "workflow", session_id=one.session_id) == []
    project_id = (await scene.look(two)).project_id
    newer = backend.add_session(ME, project_id)
    found = await store.newest_ids(ME, "session", project_id=project_id)
    assert found == [newer, two.session_id]


async def test_looking_back_changes_nothing(scene: Scene) -> None:
    subject = await scene.subject(Kind.RUNNING)
    before = await scene.look(subject)
    await scene.store.history(ME, subject.workflow_id)
    await scene.store.newest_ids(ME, "session", prefix=subject.session_id[:4])
    assert still(await scene.look(subject)) == still(before)
