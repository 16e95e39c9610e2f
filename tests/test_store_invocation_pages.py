"""The contract of a store: how invocations are read, alone and in pages that stay in order while more come."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import anyio
import pytest

from bilt_mcp.state import (
    MOST_INVOCATIONS,
    Invocation,
    Plan,
)

from .store_contract import (
    BROKEN,
    BUILD,
    ME,
    PROCESS,
    WITH_WORKFLOW,
    Kind,
    ManualClock,
    OpenStore,
    Scene,
)
from .store_shop import BY, LATE, ONE, REQUEST, S, Shop
from .store_shop import shop as shop  # a fixture

pytestmark = pytest.mark.anyio


# -- reading one -----------------------------------------------------------------------------------


async def test_what_is_told_of_an_invocation_is_true_at_every_stage(
    shop: Shop, clock: ManualClock
) -> None:
    ask = replace(BUILD, confirm="Build it?", confirm_timeout=60.0)
    started = await shop.invoke(Plan((ask, BUILD), request=REQUEST))
    found = await shop.look(started)
    assert (found.status, found.project_id, found.sequence) == (S.QUEUED, shop.project_id, 1)
    assert found.workflow == await shop.store.workflow(ME, started.workflow_id)
    claim = await shop.scene.claim()
    assert (await shop.look(started)).status is S.DISPATCHING
    assert await shop.store.pause(claim, "Build it?")
    found = await shop.look(started)
    session = await shop.store.session(ME, started.session_id)
    assert found.status is S.RUNNING
    assert found.pending_action == session.pending_action
    assert found.pending_action is not None
    clock.go_on(5)
    await shop.store.confirm(ME, started.session_id, found.pending_action.action_id, BY)
    found = await shop.look(started)
    assert (found.status, found.pending_action) == (S.RUNNING, None)
    assert found.updated_at == clock.now()
    claim = await shop.scene.claim()
    ticket = await shop.store.begin_step(claim, 1, PROCESS)
    assert ticket is not None
    await shop.store.step_ended(ticket, "failed", 3)
    ticket = await shop.store.begin_step(claim, 2, PROCESS)
    assert ticket is not None
    found = await shop.look(started)
    assert [(run.attempt, run.outcome, run.exit_code) for run in found.runs] == [
        (1, "failed", 3),
        (2, None, None),
    ]
    assert found.last_run(1) == found.runs[1]
    assert found.last_run(2) is None
    assert list(found.runs) == list((await shop.store.history(ME, started.workflow_id)).runs)


IN = {
    Kind.PENDING: S.QUEUED,
    Kind.RUNNING: S.DISPATCHING,
    Kind.RESUMED: S.DISPATCHING,
    Kind.PAUSED: S.RUNNING,
    Kind.GATED: S.RUNNING,
    Kind.CANCELLING: S.CANCELLING,
    Kind.CANCELLED: S.CANCELLED,
    Kind.COMPLETED: S.SUCCEEDED,
    Kind.FAILED: S.FAILED,
}


@pytest.mark.parametrize("kind", WITH_WORKFLOW)
async def test_a_status_is_read_and_asked_for_in_the_same_words(scene: Scene, kind: Kind) -> None:
    on = await scene.subject(kind)
    found = await scene.store.invocation(ME, on.workflow_id)
    assert found.status is IN[kind]
    assert found.plan.request is None
    for status in S:
        page = await scene.store.invocations(ME, on.session_id, statuses=[status])
        assert [one.status for one in page.invocations] == [status] * (status is found.status)


async def test_what_took_too_long_is_told_from_what_failed(shop: Shop) -> None:
    failed = await shop.done(failure=BROKEN)
    late = await shop.done(failure=LATE)
    done = await shop.done()
    assert (await shop.look(late)).status is S.TIMED_OUT
    assert await shop.ids(late.session_id, S.TIMED_OUT) == [late.workflow_id]
    assert await shop.ids(late.session_id, S.FAILED) == [failed.workflow_id]
    either = await shop.ids(late.session_id, S.FAILED, S.SUCCEEDED)
    assert either == [done.workflow_id, failed.workflow_id]


async def test_a_step_that_runs_or_was_left_out_has_been_dispatched(shop: Shop) -> None:
    started = await shop.invoke(Plan((replace(BUILD, dry_run=True), BUILD), request=REQUEST))
    claim = await shop.scene.claim()
    assert (await shop.look(started)).status is S.DISPATCHING
    assert await shop.store.advance(claim, 2)
    assert (await shop.look(started)).status is S.RUNNING


async def test_whoever_looks_sees_that_a_gate_was_not_answered_in_time(
    shop: Shop, clock: ManualClock
) -> None:
    for listing in (False, True):
        ask = replace(BUILD, confirm="Build it?", confirm_timeout=60.0)
        started = await shop.invoke(Plan((ask,), request=REQUEST))
        assert await shop.store.pause(await shop.scene.claim(), "Build it?")
        clock.go_on(60_000)
        if listing:
            page = await shop.store.invocations(ME, started.session_id)
            found = page.invocations[0]
        else:
            found = await shop.look(started)
        assert (found.status, found.pending_action) == (S.CANCELLED, None)
        assert found.workflow.id == started.workflow_id


# -- lists -----------------------------------------------------------------------------------------


async def test_pages_are_newest_first_and_numbered_from_the_oldest(
    shop: Shop, open_store: OpenStore
) -> None:
    made = [await shop.done(failure=LATE if n % 3 == 0 else None) for n in range(9)]
    session_id = made[0].session_id
    seen: list[tuple[str, int]] = []
    after = None
    while True:
        page = await shop.store.invocations(ME, session_id, after=after, limit=4)
        seen += [(found.workflow.id, found.sequence) for found in page.invocations]
        after = page.invocations[-1].workflow.id
        if not page.has_more:
            break
    assert seen == [(one.workflow_id, n) for n, one in reversed(list(enumerate(made, 1)))]
    async with open_store() as fresh:
        late = await fresh.invocations(ME, session_id, statuses=[S.TIMED_OUT], limit=2)
    assert late.has_more
    assert [found.sequence for found in late.invocations] == [7, 4]
    rest = await shop.store.invocations(
        ME, session_id, statuses=[S.TIMED_OUT], after=late.invocations[-1].workflow.id
    )
    assert [found.sequence for found in rest.invocations] == [1]
    assert not rest.has_more
    for found in rest.invocations:
        assert found == await shop.store.invocation(ME, found.workflow.id)


async def test_a_page_has_a_hundred_at_most(shop: Shop) -> None:
    await shop.store.latest_session(ME, shop.project_id)
    first = await shop.done()
    for _ in range(MOST_INVOCATIONS):
        await shop.done()
    page = await shop.store.invocations(ME, first.session_id, limit=10_000)
    assert (len(page.invocations), page.has_more) == (MOST_INVOCATIONS, True)
    assert page.invocations[0].sequence == MOST_INVOCATIONS + 1


async def test_a_reader_misses_nothing_and_sees_nothing_twice_while_four_add(
    shop: Shop, open_store: OpenStore
) -> None:
    before = [(await shop.done()).workflow_id for _ in range(30)]
    session_id = (await shop.store.latest_session(ME, shop.project_id)).id
    epoch = await shop.scene.epoch()
    stop, added = anyio.Event(), 0

    async def add() -> None:
        nonlocal added
        async with open_store() as store:
            while not stop.is_set():
                async with turn:
                    new = str(uuid4())
                    await store.invoke(ME, shop.project_id, "build", ONE, workflow_id=new, by=BY)
                    claim = await store.claim(epoch)
                    assert claim is not None
                    assert claim.session_id == session_id
                    assert await store.complete(claim, [])
                    added += 1

    turn = anyio.Lock()  # so that all of them go to the one session
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(add)
        for _ in range(5):
            seen: list[Invocation] = []
            seen_added, after = added, None
            while True:
                page = await shop.store.invocations(ME, session_id, after=after, limit=3)
                seen += page.invocations
                after = seen[-1].workflow.id
                if not page.has_more:
                    break
            ids = [found.workflow.id for found in seen]
            assert len(set(ids)) == len(ids) >= 30 + seen_added
            assert ids[-30:] == before[::-1]
            assert [found.sequence for found in seen] == list(range(len(seen), 0, -1))
        stop.set()
    assert added > 0
