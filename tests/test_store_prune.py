"""Old sessions go, and only they: whole, at once for every reader, and never while anything of them is not over."""

from __future__ import annotations

import pytest

from bilt_mcp.state import (
    MessageQuery,
    Note,
    ProjectNotFound,
    SessionNotFound,
    SessionStore,
    Status,
    WorkflowNotFound,
)

from .store_contract import ME, PROCESS, WITH_WORKFLOW, Kind, ManualClock, Scene, Subject

pytestmark = pytest.mark.anyio

OVER = (Kind.CANCELLED, Kind.COMPLETED, Kind.FAILED)
DAY = 86_400_000


async def prune(scene: Scene, before: int) -> int:
    """Everything that a worker does to prune, but for the files."""
    hidden = 0
    while some := await scene.store.hide_old(await scene.epoch(), before):
        hidden += some
    while await scene.store.delete_hidden(await scene.epoch()):
        pass
    return hidden


async def is_gone(store: SessionStore, subject: Subject) -> bool:
    try:
        await store.session(ME, subject.session_id)
    except SessionNotFound:
        with pytest.raises(WorkflowNotFound):
            await store.workflow(ME, subject.workflow_id)
        with pytest.raises(SessionNotFound):
            await store.messages(ME, subject.session_id, MessageQuery())
        return True
    return False


@pytest.mark.parametrize("kind", WITH_WORKFLOW)
async def test_what_is_over_and_old_goes_and_nothing_else(
    scene: Scene, clock: ManualClock, kind: Kind
) -> None:
    subject = await scene.subject(kind)
    clock.go_on(DAY)
    assert await prune(scene, clock.now()) == (1 if kind in OVER else 0)
    assert await is_gone(scene.store, subject) is (kind in OVER)


@pytest.mark.parametrize("kind", OVER)
async def test_what_is_over_but_not_old_stays(scene: Scene, clock: ManualClock, kind: Kind) -> None:
    subject = await scene.subject(kind)
    clock.go_on(DAY)
    assert await prune(scene, clock.now() - DAY) == 0
    assert not await is_gone(scene.store, subject)


async def test_a_session_that_never_had_a_workflow_stays(scene: Scene, clock: ManualClock) -> None:
    subject = await scene.subject(Kind.IDLE)
    clock.go_on(DAY)
    assert await prune(scene, clock.now()) == 0
    assert (await scene.look(subject)).status == "idle"


async def test_a_session_whose_first_workflow_is_over_and_whose_second_waits_stays(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    await scene.store.start(ME, subject.session_id, "again", subject.claim.plan)
    clock.go_on(DAY)
    assert await prune(scene, clock.now()) == 0
    assert (await scene.look(subject)).status == "pending"


async def test_who_reads_finds_nothing_as_soon_as_it_is_decided(
    scene: Scene, clock: ManualClock, other: SessionStore
) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    clock.go_on(DAY)
    assert await scene.store.hide_old(await scene.epoch(), clock.now()) == 1
    assert await is_gone(other, subject)
    with pytest.raises(SessionNotFound):
        await other.start(ME, subject.session_id, "again", subject.claim.plan)


async def test_a_long_history_goes_in_pieces_and_others_keep_theirs(
    scene: Scene, clock: ManualClock
) -> None:
    old = await scene.subject(Kind.RUNNING)
    for _ in range(12):
        await scene.store.note(old.claim, [Note(f"line {n}") for n in range(100)])
    assert await scene.store.complete(old.claim, [])
    clock.go_on(DAY)
    young = await scene.subject(Kind.COMPLETED)
    kept = await scene.store.messages(ME, young.session_id, MessageQuery())
    epoch = await scene.epoch()
    assert await scene.store.hide_old(epoch, clock.now() - DAY // 2) == 1
    pieces = 0
    while await scene.store.delete_hidden(epoch):
        pieces += 1
    assert pieces >= 3
    assert await is_gone(scene.store, old)
    assert await scene.store.messages(ME, young.session_id, MessageQuery()) == kept


async def test_the_project_of_a_pruned_session_gives_a_new_one(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    project = (await scene.look(subject)).project_id
    clock.go_on(DAY)
    assert await scene.store.hide_old(await scene.epoch(), clock.now()) == 1
    between = await scene.store.latest_session(ME, project)
    assert between.id != subject.session_id
    assert between.status == "idle"
    assert await prune(scene, clock.now()) == 0
    assert await scene.store.latest_session(ME, project) == between


async def test_an_idempotency_key_goes_with_its_session(scene: Scene, clock: ManualClock) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    await scene.store.start(ME, subject.session_id, "again", subject.claim.plan, key="k")
    claim = await scene.claim()
    assert await scene.store.complete(claim, [])
    clock.go_on(DAY)
    assert await prune(scene, clock.now()) == 1
    with pytest.raises(SessionNotFound):
        await scene.store.first_answer(ME, subject.session_id, "again", "k")


async def test_the_files_of_what_was_deleted_are_named_until_they_are_gone(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    await scene.store.keep_files(subject.workflow_id, 1000)
    assert list(await scene.store.pruned()) == []
    clock.go_on(DAY)
    await prune(scene, clock.now())
    assert list(await scene.store.pruned()) == [subject.workflow_id]
    await scene.store.files_gone([subject.workflow_id])
    assert list(await scene.store.pruned()) == []


async def test_a_worker_that_was_replaced_deletes_nothing(
    scene: Scene, clock: ManualClock, other: SessionStore
) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    stale = await scene.epoch()
    await other.take_over(PROCESS, "2")
    clock.go_on(DAY)
    assert await scene.store.hide_old(stale, clock.now()) == 0
    assert not await is_gone(scene.store, subject)


async def test_what_is_kept_beside_the_store_is_forgotten_only_when_it_was_pruned(
    scene: Scene,
) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    await scene.store.keep_files(subject.workflow_id, 1000)
    await scene.store.keep_files(subject.workflow_id, 3000)  # measured again
    await scene.store.files_gone([subject.workflow_id])
    assert not await is_gone(scene.store, subject)
    assert await scene.store.workflow_status(subject.workflow_id) is Status.COMPLETED
    with pytest.raises(ProjectNotFound):
        await scene.store.project(ME, subject.workflow_id)


async def test_a_replaced_worker_deletes_nothing_and_is_told_that_nothing_is_left(
    scene: Scene, clock: ManualClock
) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    clock.go_on(DAY)
    replaced = await scene.epoch()
    assert await scene.store.hide_old(replaced, clock.now()) == 1
    epoch = await scene.store.take_over(PROCESS, "1")
    assert not await scene.store.delete_hidden(replaced)
    assert await scene.store.delete_hidden(epoch)
    assert await is_gone(scene.store, subject)
