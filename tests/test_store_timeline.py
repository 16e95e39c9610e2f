"""The contract of a store: what happened in a workflow has one order, and whoever reads on misses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import anyio
import pytest

from bilt_mcp.state import (
    AskedGate,
    Caller,
    Happening,
    Message,
    Note,
    Over,
    Place,
    Plan,
    PlannedStep,
    ProjectNotFound,
    SessionNotFound,
    SessionStore,
    SqliteStore,
    StepBegan,
    StepEnded,
    Timeline,
)
from bilt_mcp.state.driver import sqlite3

from .store_contract import (
    BUILD,
    DEPLOY,
    GONE,
    ME,
    NOBODY_KNOWS,
    PROCESS,
    RECEIPT,
    SOMEBODY_ELSE,
    Kind,
    ManualClock,
    Scene,
    Subject,
)

pytestmark = pytest.mark.anyio

PLAN = Plan((BUILD, DEPLOY))


async def read(
    store: SessionStore, subject: Subject, after: Place | None = None, limit: int = 500
) -> Timeline:
    found = await store.timeline(ME, subject.session_id, after, limit)
    assert found is not None
    return found


def told(happenings: Sequence[Happening]) -> list[str]:
    return [_told(happening) for happening in happenings]


def _told(happening: Happening) -> str:
    match happening.what:
        case Message(content=content):
            return content
        case StepBegan(run):
            return f"<{run.name}.{run.attempt}>"
        case StepEnded(run):
            return f"</{run.name}.{run.attempt} {run.outcome}>"
        case AskedGate() as gate:
            return f"? {gate.step} {gate.answer}"
        case Over(workflow):
            return f"= {workflow.status}"


async def whole(scene: Scene, *, answer: bool = True) -> Subject:
    """A workflow of two steps, the second behind a gate, with a retry, run to its end."""
    store = scene.store
    subject = await scene.subject(Kind.RUNNING, PLAN)
    first = await scene.begin(subject)
    await store.note(subject.claim, [Note("one", step="build")])
    await store.step_ended(first, "failed", 2, [Note("two", step="build")])
    second = await scene.begin(subject, 2)
    await store.step_ended(second, "succeeded", 0)
    await store.advance(subject.claim, 2)
    claim = replace(subject.claim, position=2)
    assert await store.pause(claim, "Deploy it?")
    gate = (await scene.look(subject)).pending_action
    assert gate is not None
    decide = store.confirm if answer else store.decline
    await decide(ME, subject.session_id, gate.action_id, Caller("a person"))
    if not answer:
        return subject
    subject = replace(subject, maybe_claim=await scene.claim())
    third = await scene.begin(subject)
    await store.step_ended(third, "succeeded", 0, [Note("deployed", step="deploy")])
    await store.advance(subject.claim, 3)
    assert await store.complete(subject.claim, [Note("Workflow completed.", "success")])
    return subject


ALL = [
    "go",
    "Workflow accepted from a program. Steps: build, deploy",
    "<build.1>",
    "one",
    "two",
    "</build.1 failed>",
    "<build.2>",
    "</build.2 succeeded>",
    "Waiting for a person before step deploy: Deploy it?",
    "? deploy confirmed",
    "Step deploy confirmed by a person.",
    "<deploy.1>",
    "deployed",
    "</deploy.1 succeeded>",
    "Workflow completed.",
    "= completed",
]


async def test_everything_of_a_workflow_is_told_in_the_order_in_which_it_happened(
    scene: Scene,
) -> None:
    found = await read(scene.store, await whole(scene))
    assert told(found.happenings) == ALL
    assert not found.has_more
    places = [happening.place for happening in found.happenings]
    assert places == sorted(set(places))


@pytest.mark.parametrize("limit", [1, 2, 500])
async def test_who_reads_on_from_any_place_gets_exactly_the_rest(scene: Scene, limit: int) -> None:
    subject = await whole(scene)
    places = [one.place for one in (await read(scene.store, subject)).happenings]
    for number, place in enumerate(places):
        after, rest = place, list[str]()
        while True:
            found = await read(scene.store, subject, after, limit)
            rest += told(found.happenings)
            if found.happenings:
                after = found.happenings[-1].place
            if not found.has_more:
                break
        assert rest == ALL[number + 1 :]


async def test_who_reads_after_each_step_gets_the_same_as_who_reads_at_the_end(
    store: SessionStore, other: SessionStore, scene: Scene
) -> None:
    """What is read while it happens is never put behind what was read before."""
    seen: list[Happening] = []
    session_id = ""

    async def look() -> None:
        found = await other.timeline(ME, session_id, seen[-1].place if seen else None)
        assert found is not None
        seen.extend(found.happenings)

    subject = await scene.subject(Kind.RUNNING, PLAN)
    session_id = subject.session_id
    await look()
    for attempt in (1, 2):
        ticket = await scene.begin(subject, attempt)
        await look()
        await store.request_pause(ME, session_id, Caller("somebody"))
        await look()
        await store.step_ended(ticket, "failed", 1, [Note("why", step="build")])
        await look()
    await store.cancel(ME, session_id, None, Caller("somebody"))
    await look()
    assert await store.stopped(subject.claim.epoch, subject.workflow_id, RECEIPT, [Note("dead")])
    await look()
    assert told(seen) == told((await read(store, subject)).happenings)
    assert told(seen)[-2:] == ["dead", "= cancelled"]


async def test_what_a_cancelled_step_said_last_comes_before_its_end(scene: Scene) -> None:
    subject = await scene.subject(Kind.RUNNING)
    await scene.begin(subject)
    await scene.store.cancel(ME, subject.session_id, None, Caller("me"))
    await scene.store.stopped(subject.claim.epoch, subject.workflow_id, RECEIPT, [Note("last")])
    found = told((await read(scene.store, subject)).happenings)
    assert found[-3:] == ["last", "</build.1 stopped>", "= cancelled"]


async def test_a_step_that_was_lost_ends_before_its_workflow_fails(scene: Scene) -> None:
    subject = await scene.subject(Kind.RUNNING)
    await scene.begin(subject)
    epoch = await scene.store.take_over(PROCESS, "2")
    assert await scene.store.report_lost(epoch, subject.workflow_id, GONE, RECEIPT)
    found = told((await read(scene.store, subject)).happenings)
    assert found[-3:] == ["</build.1 lost>", GONE.message, "= failed"]


async def test_behind_the_end_of_one_workflow_comes_the_next_one(scene: Scene) -> None:
    subject = await whole(scene)
    end = (await read(scene.store, subject)).happenings[-1].place
    assert (await read(scene.store, subject, end)).happenings == ()
    await scene.store.start(ME, subject.session_id, "again", PLAN)
    behind = await read(scene.store, subject, end)
    assert told(behind.happenings)[0] == "again"
    fresh = await read(scene.store, subject)
    assert fresh.happenings == behind.happenings
    # In the middle of the first one its own rest comes first.
    first = await read(scene.store, subject, Place(end.message))
    assert told(first.happenings) == ["= completed"]


async def test_a_declined_gate_ends_it_and_is_told_with_its_answer(scene: Scene) -> None:
    subject = await whole(scene, answer=False)
    found = told((await read(scene.store, subject)).happenings)
    assert "? deploy declined" in found
    assert found[-1] == "= cancelled"


async def test_a_gate_whose_time_is_up_is_declined_by_this_look(
    scene: Scene, clock: ManualClock
) -> None:
    late = PlannedStep("deploy", {"run": "x"}, confirm="Deploy it?", confirm_timeout=60.0)
    subject = await scene.subject(Kind.GATED, Plan((late,)))
    assert told((await read(scene.store, subject)).happenings)[-1] == "? deploy None"
    clock.go_on(60_001)
    assert told((await read(scene.store, subject)).happenings)[-1] == "= cancelled"


async def test_a_place_of_no_message_of_this_session_is_none(scene: Scene) -> None:
    mine, theirs = await whole(scene), await whole(scene)
    other = (await read(scene.store, theirs)).happenings[0].place
    for place in (other, Place(10**9), Place(0), Place(-1)):
        assert await scene.store.timeline(ME, mine.session_id, place) is None


async def test_a_session_without_a_workflow_has_nothing_to_tell(scene: Scene) -> None:
    found = await read(scene.store, await scene.subject(Kind.IDLE))
    assert (found.workflow, found.happenings, found.has_more) == (None, (), False)


async def test_an_unknown_session_and_a_foreign_one_are_the_same(scene: Scene) -> None:
    subject = await whole(scene)
    for account, session_id in ((ME, NOBODY_KNOWS), (SOMEBODY_ELSE, subject.session_id)):
        with pytest.raises(SessionNotFound) as raised:
            await scene.store.timeline(account, session_id)
        assert "No session" in raised.value.message


async def test_each_message_passes_the_pulse_and_each_change(
    store: SessionStore, other: SessionStore, scene: Scene
) -> None:
    subject = await scene.subject(Kind.RUNNING)
    for change in (
        lambda: other.note(subject.claim, [Note("line")]),
        lambda: other.note(subject.claim, [], percent=3),
        lambda: other.advance(subject.claim, 2),
    ):
        with store.watch(ME, subject.session_id, messages=True) as watch:
            pulse = (await read(store, subject)).pulse
            waiting = asyncio.create_task(watch.passed(pulse, 60))
            await anyio.sleep(0.05)
            assert not waiting.done()
            await change()
            with anyio.fail_after(10):
                assert await waiting


async def test_messages_wake_nobody_who_does_not_care_for_them(
    store: SessionStore, other: SessionStore, scene: Scene
) -> None:
    subject = await scene.subject(Kind.RUNNING)
    with store.watch(ME, subject.session_id) as plain:
        known = (await scene.look(subject)).revision
        waiting = asyncio.create_task(plain.passed(known, 60))
        with store.watch(ME, subject.session_id, messages=True) as watch:
            pulse = (await read(store, subject)).pulse
            await other.note(subject.claim, [Note("line")])
            with anyio.fail_after(10):
                assert await watch.passed(pulse, 60)
        assert not waiting.done()
        waiting.cancel()


async def test_what_older_code_has_written_is_ordered_by_the_clock(
    scene: Scene, clock: ManualClock
) -> None:
    store = scene.store
    subject = await scene.subject(Kind.RUNNING)
    clock.go_on(10)
    ticket = await scene.begin(subject)
    clock.go_on(10)
    await store.note(subject.claim, [Note("one")])
    clock.go_on(10)
    await store.step_ended(ticket, "failed", 1)
    clock.go_on(10)
    await store.note(subject.claim, [Note("two")])
    before = told((await read(store, subject)).happenings)
    assert isinstance(store, SqliteStore)
    with closing(sqlite3.connect(store.location.database, isolation_level=None)) as database:
        database.execute("UPDATE step_run SET began_after = NULL, ended_after = NULL")
    assert told((await read(store, subject)).happenings) == before
    assert before[2:] == ["<build.1>", "one", "</build.1 failed>", "two"]


async def test_a_new_session_is_one_that_was_never_used(scene: Scene) -> None:
    store = scene.store
    session = await scene.look(await scene.subject(Kind.COMPLETED))
    first = await store.new_session(ME, session.project_id)
    assert first.id != session.id
    assert first.workflow is None
    assert (await store.new_session(ME, session.project_id)).id == first.id
    await store.start(ME, first.id, "go", PLAN)
    second = await store.new_session(ME, session.project_id)
    assert second.id not in (first.id, session.id)
    assert (await store.latest_session(ME, session.project_id)).id == second.id
    for account, project_id in ((ME, NOBODY_KNOWS), (SOMEBODY_ELSE, session.project_id)):
        with pytest.raises(ProjectNotFound):
            await store.new_session(account, project_id)
