"""The contract of a store, for every implementation: whose it is, accepting a message, and racing.

Its further parts are in test_store_decisions.py, test_store_worker.py, test_store_endings.py,
test_store_messages.py, test_store_revision.py and test_store_waiting.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from bilt_mcp.state import (
    FINAL,
    BiltError,
    Caller,
    Cancelled,
    CannotCancel,
    IdempotencyKeyReused,
    MessageQuery,
    Note,
    NothingToConfirm,
    Plan,
    ProjectNotFound,
    SessionNotFound,
    SessionStore,
    Started,
    Status,
    WorkflowAlreadyActive,
    WorkflowNotFound,
)

from .store_contract import (
    BROKEN,
    BUILD,
    ME,
    NOBODY_KNOWS,
    PLAN,
    SOMEBODY_ELSE,
    WITH_WORKFLOW,
    Kind,
    Scene,
    Subject,
)

pytestmark = pytest.mark.anyio

Call = Callable[[SessionStore, str, Subject], Awaitable[object]]

ON_A_SESSION: dict[str, Call] = {
    "session": lambda s, who, x: s.session(who, x.session_id),
    "messages": lambda s, who, x: s.messages(who, x.session_id, MessageQuery()),
    "first_answer": lambda s, who, x: s.first_answer(who, x.session_id, "go", "key"),
    "start": lambda s, who, x: s.start(who, x.session_id, "go", PLAN),
    "start with key": lambda s, who, x: s.start(who, x.session_id, "go", PLAN, key="key"),
    "cancel": lambda s, who, x: s.cancel(who, x.session_id, None, Caller(who)),
    "steps_done": lambda s, who, x: s.steps_done(who, x.session_id),
    "audit": lambda s, who, x: s.audit(who, x.session_id),
    "request_pause": lambda s, who, x: s.request_pause(who, x.session_id, Caller(who)),
    "resume": lambda s, who, x: s.resume(who, x.session_id, Caller(who)),
    "confirm": lambda s, who, x: s.confirm(who, x.session_id, x.action_id, Caller(who)),
    "decline": lambda s, who, x: s.decline(who, x.session_id, x.action_id, Caller(who)),
}


# -- accounts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ON_A_SESSION)
async def test_a_foreign_session_is_as_unknown_as_one_that_never_was(
    scene: Scene, verb: str
) -> None:
    store, call = scene.store, ON_A_SESSION[verb]
    mine = await scene.subject(Kind.GATED)
    await scene.session(SOMEBODY_ELSE)
    before = await scene.look(mine), await store.messages(ME, mine.session_id, MessageQuery())
    with pytest.raises(SessionNotFound) as foreign:
        await call(store, SOMEBODY_ELSE, mine)
    with pytest.raises(SessionNotFound) as unknown:
        await call(store, ME, Subject(NOBODY_KNOWS, maybe_action_id=mine.action_id))
    assert foreign.value.details == unknown.value.details
    assert foreign.value.error == "Session not found"
    assert before == (
        await scene.look(mine),
        await store.messages(ME, mine.session_id, MessageQuery()),
    )


async def test_a_foreign_project_is_as_unknown_as_one_that_never_was(store: SessionStore) -> None:
    mine = await store.open_project(ME, "/srv/shop", "shop")
    told: set[str] = set()
    for account, project_id in ((SOMEBODY_ELSE, mine.id), (ME, NOBODY_KNOWS)):
        for look in (store.project, store.latest_session):
            with pytest.raises(ProjectNotFound) as refused:
                await look(account, project_id)
            assert refused.value.error == "Project not found"
            told.add(str(refused.value.details))
    assert len(told) == 1


async def test_a_workflow_of_another_session_is_as_unknown_as_one_that_never_was(
    scene: Scene,
) -> None:
    mine = await scene.subject(Kind.COMPLETED)
    second = await scene.subject(Kind.COMPLETED)
    told: set[str] = set()
    for workflow_id in (second.workflow_id, NOBODY_KNOWS):
        query = MessageQuery(workflow_id=workflow_id)
        with pytest.raises(WorkflowNotFound) as refused:
            await scene.store.messages(ME, mine.session_id, query)
        assert refused.value.error == "Workflow not found"
        told.add(str(refused.value.details))
    assert len(told) == 1


async def test_an_action_of_another_session_is_not_open_in_this_one(scene: Scene) -> None:
    mine, second = await scene.subject(Kind.GATED), await scene.subject(Kind.GATED)
    for verb in (scene.store.confirm, scene.store.decline):
        with pytest.raises(NothingToConfirm):
            await verb(ME, mine.session_id, second.action_id, Caller("me"))
    assert (await scene.look(mine)).status == (await scene.look(second)).status == "paused"


# -- projects and sessions -------------------------------------------------------------------------


async def test_a_folder_is_one_project_for_each_account(store: SessionStore) -> None:
    first = await store.open_project(ME, "/srv/shop", "shop")
    assert await store.open_project(ME, "/srv/shop", "another name") == first
    assert (first.account, first.root, first.name) == (ME, "/srv/shop", "shop")
    assert first.visibility == "public"
    assert await store.project(ME, first.id) == first
    theirs = await store.open_project(SOMEBODY_ELSE, "/srv/shop", "shop")
    elsewhere = await store.open_project(ME, "/srv/shop2", "shop")
    assert len({first.id, theirs.id, elsewhere.id}) == 3
    assert UUID(first.id).version == 4


async def test_two_who_open_a_new_project_at_once_get_the_same(
    store: SessionStore, other: SessionStore
) -> None:
    opened = await asyncio.gather(
        *(each.open_project(ME, "/srv/shop", "shop") for each in (store, other) * 5)
    )
    assert len(set(opened)) == 1
    found = await asyncio.gather(
        *(each.latest_session(ME, opened[0].id) for each in (store, other) * 5)
    )
    assert len({session.id for session in found}) == 1


async def test_a_project_starts_with_an_idle_session_that_stays(store: SessionStore) -> None:
    project = await store.open_project(ME, "/srv/shop", "shop")
    session = await store.latest_session(ME, project.id)
    assert (session.status, session.workflow, session.pending_action) == ("idle", None, None)
    assert session.project_id == project.id
    assert await store.latest_session(ME, project.id) == session
    assert await store.session(ME, session.id) == session


# -- accepting a message ---------------------------------------------------------------------------


async def test_an_accepted_message_and_its_pending_workflow_are_durable(
    scene: Scene, other: SessionStore
) -> None:
    session_id = await scene.session()
    started = await scene.store.start(ME, session_id, "Baue, größer", PLAN)
    assert started == Started(session_id, started.workflow_id, Status.PENDING)
    session = await other.session(ME, session_id)
    workflow = session.workflow
    assert workflow is not None
    assert (session.status, workflow.id) == ("pending", started.workflow_id)
    assert (workflow.position, workflow.total_steps, workflow.step) == (1, 2, "build")
    assert (workflow.started_at, workflow.finished_at, workflow.elapsed_seconds) == (None,) * 3
    assert workflow.deploy == "not_started"
    page = await other.messages(ME, session_id, MessageQuery(after=0))
    assert [(m.side, m.variant, m.workflow_id) for m in page.messages] == [
        ("user", "info", started.workflow_id),
        ("ai", "info", started.workflow_id),
    ]
    assert page.messages[0].content == "Baue, größer"
    assert await other.workflow_status(started.workflow_id) is Status.PENDING


async def test_the_caller_may_choose_the_id_of_the_workflow(scene: Scene) -> None:
    session_id = await scene.session()
    started = await scene.store.start(ME, session_id, "go", PLAN, workflow_id=NOBODY_KNOWS)
    assert started.workflow_id == NOBODY_KNOWS


@pytest.mark.parametrize("kind", WITH_WORKFLOW)
async def test_a_session_has_one_workflow_at_most_that_is_not_final(
    scene: Scene, kind: Kind
) -> None:
    subject = await scene.subject(kind)
    status = (await scene.look(subject)).status
    if status in FINAL:
        started = await scene.store.start(ME, subject.session_id, "again", PLAN)
        assert started.workflow_id != subject.workflow_id
        after = await scene.look(subject)
        assert after.workflow is not None
        assert (after.workflow.id, after.status) == (started.workflow_id, "pending")
        assert (after.workflow.failure, after.workflow.stopped) == (None, None)
    else:
        before = await scene.look(subject)
        with pytest.raises(WorkflowAlreadyActive) as refused:
            await scene.store.start(ME, subject.session_id, "again", PLAN)
        assert refused.value.error == "Workflow already active"
        details = dict(refused.value.details)
        assert details.pop("message")
        assert details == {"current_status": status, "workflow_id": subject.workflow_id}
        assert await scene.look(subject) == before


@pytest.mark.parametrize("meanwhile", ["active", "cancelled", "followed by another"])
async def test_a_known_key_gets_the_first_answer_and_starts_nothing(
    scene: Scene, meanwhile: str
) -> None:
    store, session_id = scene.store, await scene.session()
    first = await store.start(ME, session_id, "go", PLAN, key="k")
    if meanwhile != "active":
        await store.cancel(ME, session_id, None, Caller("me"))
    if meanwhile == "followed by another":
        assert await store.start(ME, session_id, "another", PLAN, key="k2") != first
    before = await store.session(ME, session_id)
    page = await store.messages(ME, session_id, MessageQuery())
    assert await store.start(ME, session_id, "go", PLAN, key="k") == first
    assert await store.start(ME, session_id, "go", Plan((BUILD,)), key="k") == first
    assert await store.first_answer(ME, session_id, "go", "k") == first
    assert await store.session(ME, session_id) == before
    assert await store.messages(ME, session_id, MessageQuery()) == page


async def test_a_key_with_another_message_is_refused(scene: Scene) -> None:
    store, session_id = scene.store, await scene.session()
    await store.start(ME, session_id, "go", PLAN, key="k")
    before = await store.session(ME, session_id)
    attempts: list[Awaitable[object]] = [
        store.start(ME, session_id, "go!", PLAN, key="k"),
        store.first_answer(ME, session_id, "go!", "k"),
    ]
    for attempt in attempts:
        with pytest.raises(IdempotencyKeyReused) as refused:
            await attempt
        assert refused.value.error == "Idempotency key reused"
    assert await store.session(ME, session_id) == before


async def test_a_key_counts_only_in_its_session_and_only_if_it_started_something(
    scene: Scene,
) -> None:
    store, session_id, elsewhere = scene.store, await scene.session(), await scene.session()
    assert await store.first_answer(ME, session_id, "go", "k") is None
    await store.start(ME, session_id, "go", PLAN)
    with pytest.raises(WorkflowAlreadyActive):
        await store.start(ME, session_id, "go", PLAN, key="k")
    assert await store.first_answer(ME, session_id, "go", "k") is None
    first = await store.start(ME, elsewhere, "other", PLAN, key="k")
    assert await store.first_answer(ME, elsewhere, "other", "k") == first


# -- racing: of verbs that compete exactly one happens ---------------------------------------------


async def attempt(call: Awaitable[object], name: str) -> tuple[str, object]:
    try:
        return name, await call
    except BiltError as error:
        return name, error


async def test_of_two_starts_one_wins_and_with_one_key_both_get_its_answer(
    scene: Scene, other: SessionStore, soak_factor: int
) -> None:
    for round_ in range(10 * soak_factor):
        session_id = await scene.session()
        key = "k" if round_ % 2 else None
        answers = await asyncio.gather(
            *(
                attempt(store.start(ME, session_id, "go", PLAN, key=key), "start")
                for store in (scene.store, other, scene.store)
            )
        )
        started = [answer for _, answer in answers if isinstance(answer, Started)]
        refused = [answer for _, answer in answers if isinstance(answer, WorkflowAlreadyActive)]
        assert len(set(started)) == 1
        assert (len(started), len(refused)) == ((3, 0) if key else (1, 2))


async def test_of_completion_failure_and_cancels_exactly_one_decides(
    scene: Scene, other: SessionStore, soak_factor: int
) -> None:
    store = scene.store
    ends = {"complete": Status.COMPLETED, "fail": Status.FAILED, "cancel": Status.CANCELLING}
    winners: set[str] = set()
    for round_ in range(20 * soak_factor):
        subject = await scene.subject(Kind.RUNNING)
        calls = [
            attempt(other.cancel(ME, subject.session_id, None, Caller("one")), "cancel"),
            attempt(store.complete(subject.claim, [Note("completed")]), "complete"),
            attempt(other.fail(subject.claim, BROKEN, [Note("failed")]), "fail"),
            attempt(store.cancel(ME, subject.session_id, None, Caller("two")), "cancel"),
        ]
        turn = round_ % len(calls)
        answers = await asyncio.gather(*calls[turn:], *calls[:turn])
        session = await scene.look(subject)
        won = {name for name, answer in answers if answer and not isinstance(answer, CannotCancel)}
        assert len(won) == 1
        (winner,) = won
        assert session.status == ends[winner]
        for _, answer in answers:
            if isinstance(answer, CannotCancel):
                assert answer.details["current_status"] == session.status
        winners.add(winner)
        if winner == "cancel":
            joined = [answer.joined for _, answer in answers if isinstance(answer, Cancelled)]
            assert sorted(joined) == [False, True]
    assert len(winners) > 1


async def test_of_pause_completion_and_failure_exactly_one_happens(
    scene: Scene, other: SessionStore, soak_factor: int
) -> None:
    for _ in range(10 * soak_factor):
        subject = await scene.subject(Kind.RUNNING)
        answers = await asyncio.gather(
            scene.store.pause(subject.claim, "Deploy it?"),
            other.complete(subject.claim, []),
            scene.store.fail(subject.claim, BROKEN, []),
        )
        assert sorted(answers) == [False, False, True]


async def test_of_all_answers_to_a_gate_exactly_one_counts(
    scene: Scene, other: SessionStore, soak_factor: int
) -> None:
    for round_ in range(10 * soak_factor):
        subject = await scene.subject(Kind.GATED)
        at = (ME, subject.session_id, subject.action_id, Caller("me"))
        calls = [
            attempt(scene.store.confirm(*at), "confirm"),
            attempt(other.decline(*at), "decline"),
            attempt(other.confirm(*at), "confirm"),
        ]
        turn = round_ % len(calls)
        answers = await asyncio.gather(*calls[turn:], *calls[:turn])
        won = [name for name, answer in answers if not isinstance(answer, NothingToConfirm)]
        status = (await scene.look(subject)).status
        assert [status] == [{"confirm": "running", "decline": "cancelled"}[name] for name in won]
        if won == ["confirm"]:
            await scene.store.cancel(ME, subject.session_id, None, Caller("me"))


async def test_of_two_who_claim_only_one_gets_it(
    scene: Scene, other: SessionStore, soak_factor: int
) -> None:
    epoch = await scene.epoch()
    for _ in range(10 * soak_factor):
        await scene.subject(Kind.PENDING)
        claims = await asyncio.gather(scene.store.claim(epoch), other.claim(epoch))
        assert sum(claim is not None for claim in claims) == 1
