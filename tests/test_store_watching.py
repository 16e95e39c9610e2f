"""The contract of a store: watching one session, however many watch and however much others write."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from bilt_mcp.state import Note, SessionStore, StoreUnavailable

from .store_contract import (
    ME,
    NOBODY_KNOWS,
    SOMEBODY_ELSE,
    Backend,
    Kind,
    OpenStore,
    Scene,
    Subject,
)
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

FOREVER = 60.0
SOON = 20.0
"""Far above what a wake-up takes (20 ms) and far below `FOREVER`: only a lost wake-up is between them."""


async def change(store: SessionStore, subject: Subject, percent: int = 40) -> None:
    await store.note(subject.claim, [], percent=percent)


async def passed(
    store: SessionStore,
    subject: Subject,
    timeout: float = FOREVER,
    read: Callable[[int], None] = lambda _: None,
) -> bool:
    """Watch a session from how it is now; `read` is told that."""
    with store.watch(ME, subject.session_id) as watch:
        known = (await store.session(ME, subject.session_id)).revision
        read(known)
        return await watch.passed(known, timeout)


async def watching(store: SessionStore, subject: Subject) -> asyncio.Task[bool]:
    """A task that does so, when it has read how the session is now."""
    has_read = anyio.Event()
    task = asyncio.create_task(passed(store, subject, read=lambda _: has_read.set()))
    await has_read.wait()
    return task


async def begun(*waits: asyncio.Task[bool]) -> None:
    """Return a little later; all of them still wait then."""
    for _ in range(20):
        await anyio.sleep(0.002)
    assert not any(wait.done() for wait in waits)


@pytest.fixture
async def subject(scene: Scene) -> Subject:
    return await scene.subject(Kind.RUNNING)


@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.parametrize("whose", ["own", "another's"])
async def test_a_change_of_the_session_is_noticed_within_milliseconds(
    store: SessionStore, other: SessionStore, subject: Subject, whose: str, urgent: bool
) -> None:
    delays: list[float] = []
    for percent in range(8):
        with store.watch(ME, subject.session_id) as watch:
            known = (await store.session(ME, subject.session_id)).revision
            waiting = asyncio.create_task(watch.passed(known, FOREVER, urgent=urgent))
            await begun(waiting)
            await change(store if whose == "own" else other, subject, percent)
            changed = time.perf_counter()
            assert await waiting
            delays.append(time.perf_counter() - changed)
            assert (await store.session(ME, subject.session_id)).revision > known
    assert max(delays) < 1.0
    assert min(delays) < 0.05


@pytest.mark.parametrize("whose", ["own", "another's"])
async def test_what_happens_to_other_sessions_wakes_nobody(
    store: SessionStore, other: SessionStore, scene: Scene, subject: Subject, whose: str
) -> None:
    elsewhere = await scene.subject(Kind.RUNNING)
    waiting = await watching(store, subject)
    await begun(waiting)
    for percent in range(20):
        await change(store if whose == "own" else other, elsewhere, percent)
        await anyio.sleep(0.005)
    await begun(waiting)
    await change(other, subject)
    with anyio.fail_after(SOON):
        assert await waiting


@pytest.mark.parametrize("whose", ["own", "another's"])
async def test_what_was_committed_after_watching_began_is_never_missed(
    store: SessionStore, other: SessionStore, scene: Scene, subject: Subject, whose: str
) -> None:
    """Before the first wait, between two waits, and while a look for somebody else is under way."""
    elsewhere = await scene.subject(Kind.RUNNING)
    writer = store if whose == "own" else other
    noisy = await watching(store, elsewhere)
    for percent in range(0, 30, 2):
        with store.watch(ME, subject.session_id) as watch:
            known = (await store.session(ME, subject.session_id)).revision
            await change(writer, subject, percent)
            with anyio.fail_after(SOON):
                assert await watch.passed(known, FOREVER)
            known = (await store.session(ME, subject.session_id)).revision
            while await watch.passed(known, 0.0):
                pass
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(change, writer, subject, percent + 1)
                await anyio.sleep(percent / 10_000)
                await watch.passed(known, 0.0)
            with anyio.fail_after(SOON):
                assert await watch.passed(known, FOREVER)
    noisy.cancel()


async def test_a_wait_ends_at_its_limit_and_says_so(store: SessionStore, subject: Subject) -> None:
    begun_at = time.monotonic()
    assert not await passed(store, subject, 0.2)
    assert 0.19 < time.monotonic() - begun_at < 0.2 + SOON
    assert not await passed(store, subject, 0.0)


async def test_a_revision_that_is_still_to_come_is_waited_for(
    store: SessionStore, other: SessionStore, subject: Subject
) -> None:
    known = (await store.session(ME, subject.session_id)).revision
    with store.watch(ME, subject.session_id) as watch:
        waiting = asyncio.create_task(watch.passed(known + 1, FOREVER))
        await begun(waiting)
        await change(other, subject, 1)
        await begun(waiting)
        await change(other, subject, 2)
        with anyio.fail_after(SOON):
            assert await waiting


async def test_a_session_that_nobody_finds_is_to_be_looked_at(
    store: SessionStore, subject: Subject
) -> None:
    for account, session_id in ((ME, NOBODY_KNOWS), ("somebody else", subject.session_id)):
        with store.watch(account, session_id) as watch, anyio.fail_after(SOON):
            waiting = asyncio.create_task(watch.passed(10**9, FOREVER))
            await anyio.lowlevel.checkpoint()
            await change(store, subject)
            assert await waiting


async def test_hundreds_who_watch_many_sessions_are_each_told_of_their_own(
    store: SessionStore, other: SessionStore, scene: Scene, subject: Subject
) -> None:
    many = [await scene.subject(Kind.RUNNING) for _ in range(150)]
    read: list[int] = []

    def watcher(one: Subject) -> asyncio.Task[bool]:
        return asyncio.create_task(passed(store, one, read=read.append))

    waiting = [watcher(one) for one in many for _ in range(2)]
    alone = [watcher(one) for one in [subject] * 3]
    await wait_until(lambda: len(read) == len(waiting) + len(alone), "all have read")
    await begun(*waiting, *alone)
    await change(other, subject)
    with anyio.fail_after(SOON):
        assert all(await asyncio.gather(*alone))
    await begun(*waiting)
    for one in many:
        await change(other, one)
    with anyio.fail_after(20):
        assert all(await asyncio.gather(*waiting))


async def test_who_is_cancelled_is_gone_and_the_others_wait_on(
    store: SessionStore, other: SessionStore, subject: Subject
) -> None:
    tasks_before = len(asyncio.all_tasks())
    stays = await watching(store, subject)
    for _ in range(20):
        leaving = [asyncio.create_task(passed(store, subject)) for _ in range(50)]
        await anyio.sleep(0.002)
        for one in leaving:
            one.cancel()
        ended = await asyncio.gather(*leaving, return_exceptions=True)
        assert {type(end) for end in ended} == {asyncio.CancelledError}
    assert len(asyncio.all_tasks()) == tasks_before + 1
    await change(other, subject)
    with anyio.fail_after(SOON):
        assert await stays


async def test_who_waits_when_the_store_is_closed_finds_it_closed(
    open_store: OpenStore, subject: Subject
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_store())
        waits = [await watching(opened, subject) for _ in range(3)]
        changes = asyncio.create_task(opened.wait_change(opened.changes(), FOREVER))
        await begun(*waits)
        await stack.aclose()
        with anyio.fail_after(SOON):
            assert all(await asyncio.gather(*waits))
            await changes
        with pytest.raises(StoreUnavailable):
            await opened.session(ME, subject.session_id)


async def test_own_news_of_a_watched_session_need_no_look_at_others_commits(
    backend: Backend, store: SessionStore, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.look_rarely(monkeypatch)
    waiting = await watching(store, subject)
    await begun(waiting)
    await store.note(subject.claim, [Note("line")])
    await begun(waiting)
    await change(store, subject)
    await wait_until(waiting.done, "it is told")


async def test_a_foreign_session_is_watched_as_one_that_never_was(
    store: SessionStore, subject: Subject
) -> None:
    # No revision is that high: who is told all the same is told that there is no such session.
    for account, session_id in ((SOMEBODY_ELSE, subject.session_id), (ME, NOBODY_KNOWS)):
        with store.watch(account, session_id) as watch, anyio.fail_after(20):
            waiting = asyncio.create_task(watch.passed(2**53, FOREVER))
            await begun(waiting)
            await change(store, subject)
            assert await waiting
