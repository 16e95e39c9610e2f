"""The contract of a store: an invocation is accepted like a message, and its key has one answer in a project."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bilt_mcp.state import (
    Account,
    IdempotencyKeyReused,
    MessageQuery,
    Plan,
    PlannedStep,
    ProjectNotFound,
    Refusal,
    RefusalCode,
    SessionNotFound,
    SessionStore,
    SqliteStore,
    Started,
    StoreLocation,
    WorkflowNotFound,
)
from bilt_mcp.state.driver import sqlite3

from .store_contract import (
    BUILD,
    ME,
    NOBODY_KNOWS,
    PLAN,
    RECEIPT,
    SOMEBODY_ELSE,
    Kind,
    ManualClock,
    OpenStore,
    Scene,
)
from .store_shop import BY, ONE, REQUEST, S, Shop
from .store_shop import shop as shop  # a fixture
from .support.racers import Call, Racers, Refused, Turn, racers_at

pytestmark = pytest.mark.anyio


# -- starting --------------------------------------------------------------------------------------


async def test_an_invocation_is_a_workflow_of_the_project_s_session(shop: Shop) -> None:
    before = await shop.store.latest_session(ME, shop.project_id)
    started = await shop.invoke()
    assert started.session_id == before.id
    session = await shop.store.session(ME, started.session_id)
    assert session.revision > before.revision
    assert session.workflow is not None
    assert (session.workflow.id, session.status) == (started.workflow_id, "pending")
    page = await shop.store.messages(ME, started.session_id, MessageQuery())
    assert [(m.side, m.content) for m in reversed(page.messages)] == [
        ("user", "build"),
        ("ai", "Workflow accepted from curl. Steps: build"),
    ]
    audit = await shop.store.audit(ME, started.session_id)
    assert [(entry.action, entry.caller) for entry in audit] == [("start", BY)]


async def test_without_a_session_one_is_made(shop: Shop) -> None:
    started = await shop.invoke()
    assert (await shop.store.latest_session(ME, shop.project_id)).id == started.session_id


async def test_a_session_with_something_active_is_left_alone(shop: Shop) -> None:
    first = await shop.invoke()
    second = await shop.invoke()
    assert second.session_id != first.session_id
    third = await shop.invoke()  # the newest session is not free, and older ones are not looked for
    assert len({first.session_id, second.session_id, third.session_id}) == 3
    for started in (first, second, third):
        claim = await shop.scene.claim()
        assert claim.workflow_id == started.workflow_id
        assert await shop.store.complete(claim, [])
    assert (await shop.invoke()).session_id == third.session_id


async def test_the_request_is_kept_as_it_came(shop: Shop, open_store: OpenStore) -> None:
    lone: dict[str, Any] = {
        "runtimeId": NOBODY_KNOWS,
        "steps": [{"call": "\ud800"}],
        "ü": [None, 1.5, True, {}],
    }
    started = await shop.invoke(replace(ONE, request=lone))
    async with open_store() as other:
        assert (await other.invocation(ME, started.workflow_id)).plan.request == lone


async def test_a_refused_plan_is_accepted_and_can_be_read(shop: Shop) -> None:
    diagnostic = {"id": "unknown-call", "closest": ["build"], "fixes": [{"title": "Call build"}]}
    refusal = Refusal(1, "biuld", RefusalCode.UNKNOWN_CALL, "No such step", diagnostic)
    steps = (BUILD, PlannedStep("biuld", {}, dry_run=True, bind="b", ref="a"))
    plan = Plan(steps, request=REQUEST, refused=(refusal,))
    started = await shop.invoke(plan)
    claim = await shop.scene.claim()
    assert claim.plan == plan
    found = await shop.look(started)
    assert found.plan == plan
    assert found.plan.refused[0].code is RefusalCode.UNKNOWN_CALL


# -- keys ------------------------------------------------------------------------------------------


async def test_a_key_gets_its_first_answer_again_and_starts_nothing(shop: Shop) -> None:
    first = await shop.invoke(key="k")
    before = await shop.store.session(ME, first.session_id)
    assert await shop.invoke(key="k") == first
    assert await shop.store.first_invocation(ME, shop.project_id, "k", "d") == first
    assert await shop.store.session(ME, first.session_id) == before
    assert await shop.store.first_invocation(ME, shop.project_id, "other", "d") is None


async def test_a_key_with_another_request_starts_nothing(shop: Shop) -> None:
    first = await shop.invoke(key="k")
    for asked in (
        shop.invoke(key="k", digest="another"),
        shop.store.first_invocation(ME, shop.project_id, "k", "another"),
    ):
        with pytest.raises(IdempotencyKeyReused) as reused:
            await asked
        assert reused.value.details["workflow_id"] == first.workflow_id
    assert await shop.ids(first.session_id) == [first.workflow_id]


async def test_each_project_has_its_own_keys(shop: Shop) -> None:
    first = await shop.invoke(key="k")
    bakery = await shop.store.open_project(ME, "/srv/bakery", "bakery")
    second = await replace(shop, project_id=bakery.id).invoke(key="k", digest="another")
    assert second.workflow_id != first.workflow_id


async def test_a_key_is_free_again_when_its_session_is_pruned(
    shop: Shop, clock: ManualClock
) -> None:
    first = await shop.invoke(key="k")
    assert await shop.store.complete(await shop.scene.claim(), [])
    clock.go_on(1000)
    epoch = await shop.scene.epoch()
    assert await shop.store.hide_old(epoch, clock.now()) == 1
    # While it is hidden it is as gone as later, when it is deleted.
    assert await shop.store.first_invocation(ME, shop.project_id, "k", "d") is None
    second = await shop.invoke(key="k", digest="another")
    assert second.workflow_id != first.workflow_id
    while await shop.store.delete_hidden(epoch):
        pass
    assert await shop.invoke(key="k", digest="another") == second


@pytest.fixture
def racers(quick_path: Path, scene: Scene) -> object:
    with racers_at(StoreLocation.of(quick_path / "store"), 2) as found:
        yield found


async def test_of_two_processes_with_one_key_exactly_one_starts_something(
    shop: Shop, racers: Racers
) -> None:
    def call(key: str, digest: str) -> Turn:
        named = {"workflow_id": str(uuid4()), "key": key, "digest": digest, "by": BY}
        return Turn([Call("invoke", (ME, shop.project_id, "build", ONE), named)])

    for number in range(20):
        said = racers.race(call(f"same {number}", "d"), call(f"same {number}", "d"))
        assert said[0].answer == said[1].answer
        assert isinstance(said[0].answer, Started)
        said = racers.race(call(f"other {number}", "d"), call(f"other {number}", "e"))
        accepted = [one.answer for one in said if isinstance(one.answer, Started)]
        refused = [one.answer for one in said if isinstance(one.answer, Refused)]
        assert [one.error for one in refused] == ["Idempotency key reused"]
        assert len(accepted) == 1
    started = await shop.store.newest_ids(ME, "workflow", limit=100)
    assert len(started) == 40


# -- whose -----------------------------------------------------------------------------------------

Asked = Callable[[SessionStore, str, Started, str], Awaitable[object]]
ASKED: dict[str, tuple[type[Exception], Asked]] = {
    "invocation": (WorkflowNotFound, lambda s, who, x, _: s.invocation(who, x.workflow_id)),
    "invocations": (SessionNotFound, lambda s, who, x, _: s.invocations(who, x.session_id)),
    "first_invocation": (
        ProjectNotFound,
        lambda s, who, _, project: s.first_invocation(who, project, "k", "d"),
    ),
    "invoke": (
        ProjectNotFound,
        lambda s, who, _, project: s.invoke(
            who, project, "build", ONE, workflow_id=str(uuid4()), key="k", digest="d", by=BY
        ),
    ),
}


@pytest.mark.parametrize("verb", ASKED)
async def test_what_is_somebody_else_s_is_as_unknown_as_what_never_was(
    shop: Shop, verb: str
) -> None:
    started = await shop.invoke(key="k")
    error, ask = ASKED[verb]
    before = await shop.store.session(ME, started.session_id)
    never = Started(NOBODY_KNOWS, NOBODY_KNOWS, started.status)
    with pytest.raises(error) as foreign:
        await ask(shop.store, SOMEBODY_ELSE, started, shop.project_id)
    with pytest.raises(error) as unknown:
        await ask(shop.store, ME, never, NOBODY_KNOWS)
    assert str(foreign.value) == str(unknown.value)
    assert await shop.store.session(ME, started.session_id) == before
    assert await shop.store.newest_ids(SOMEBODY_ELSE, "workflow") == []


@pytest.mark.parametrize("verb", ASKED)
async def test_who_is_limited_to_a_project_reaches_that_one_only(shop: Shop, verb: str) -> None:
    started = await shop.invoke(key="k")
    bakery = await shop.store.open_project(ME, "/srv/bakery", "bakery")
    error, ask = ASKED[verb]
    with pytest.raises(error):
        await ask(shop.store, Account(ME, bakery.id), started, shop.project_id)
    mine = await ask(shop.store, Account(ME, shop.project_id), started, shop.project_id)
    assert mine == await ask(shop.store, ME, started, shop.project_id)


async def test_what_is_started_with_a_limited_key_is_the_account_s(shop: Shop) -> None:
    await shop.invoke()  # so that the next one needs a session of its own
    limited = Account(ME, shop.project_id)
    started = await shop.store.invoke(
        limited, shop.project_id, "build", ONE, workflow_id=str(uuid4()), by=BY
    )
    assert (await shop.look(started)).workflow.id == started.workflow_id


async def test_a_page_after_what_is_of_another_session_is_refused(shop: Shop, scene: Scene) -> None:
    started = await shop.invoke()
    other = await scene.subject(Kind.IDLE)
    for after in (started.workflow_id, NOBODY_KNOWS):
        with pytest.raises(WorkflowNotFound):
            await shop.store.invocations(ME, other.session_id, after=after)


# -- on disk ---------------------------------------------------------------------------------------


async def test_a_plan_of_a_message_is_kept_as_older_code_reads_it(quick_path: Path) -> None:
    location = StoreLocation.of(quick_path / "store")
    async with SqliteStore(location, ManualClock()) as store:
        await Scene(store).subject(Kind.PENDING)
    with closing(sqlite3.connect(location.database)) as database:
        (kept,) = database.execute("SELECT plan FROM workflow").fetchone()
    for name in ("request", "refused", "dry_run", "bind", "ref"):
        assert f'"{name}"' not in kept


async def test_a_plan_that_older_code_kept_is_read(quick_path: Path) -> None:
    location = StoreLocation.of(quick_path / "store")
    step: dict[str, Any] = {
        "name": "build",
        "spec": {},
        "deploy": False,
        "confirm": None,
        "on_decline": "cancel",
    }
    old: dict[str, Any] = {
        "steps": [{**step, "confirm_timeout": None}],
        "timeout": 5.0,
        "max_parallel": None,
    }
    async with SqliteStore(location, ManualClock()) as store:
        on = await Scene(store).subject(Kind.PENDING)
        with closing(sqlite3.connect(location.database)) as database, database:
            database.execute("UPDATE workflow SET plan = ?", (json.dumps({**old, "limits": {}}),))
        found = await store.invocation(ME, on.workflow_id)
    assert found.plan == Plan((PlannedStep("build", {}),), timeout=5.0)


async def test_an_invocation_whose_receipt_is_missing_is_only_cancelling(shop: Shop) -> None:
    started = await shop.invoke(PLAN)
    claim = await shop.scene.claim()
    await shop.store.cancel(ME, started.session_id, None, BY)
    found = await shop.look(started)
    assert found.status is S.CANCELLING
    assert not found.status.final
    assert await shop.store.stopped(claim.epoch, claim.workflow_id, RECEIPT, [])
    assert (await shop.look(started)).status.final
