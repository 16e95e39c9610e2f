"""The contract of a store: waiting for a change, of one's own or of another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

import anyio
import pytest

from bilt_mcp.state import MessageQuery, Note, SessionStore

from .store_contract import ME, Backend, Kind, Scene, Subject
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

FOREVER = 60.0
SOON = 20.0
"""Far above what a wake-up takes (20 ms) and far below `FOREVER`: only a lost wake-up is between them."""


async def took(waiting: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await waiting
    return time.perf_counter() - begun


async def settle(store: SessionStore) -> int:
    """The number from which on nothing old is left to be noticed."""
    while True:
        seen = store.changes()
        if await store.wait_change(seen, 0.1) == seen:
            return seen


async def commit(store: SessionStore, subject: Subject) -> None:
    await store.note(subject.claim, [Note("line")])


@pytest.fixture
async def subject(scene: Scene) -> Subject:
    return await scene.subject(Kind.RUNNING)


async def test_every_own_commit_changes_the_number_and_looking_does_not(
    store: SessionStore, subject: Subject
) -> None:
    before = store.changes()
    await store.messages(ME, subject.session_id, MessageQuery())
    await store.session(ME, subject.session_id)
    assert store.changes() == before
    await commit(store, subject)
    assert store.changes() > before


@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.parametrize("whose", ["own", "another's"])
async def test_a_commit_wakes_who_waits_within_milliseconds(
    store: SessionStore, other: SessionStore, subject: Subject, whose: str, urgent: bool
) -> None:
    delays: list[float] = []
    for _ in range(8):
        seen = await settle(store)
        waiter = asyncio.create_task(store.wait_change(seen, FOREVER, urgent=urgent))
        await anyio.lowlevel.checkpoint()
        await commit(store if whose == "own" else other, subject)
        delays.append(await took(waiter))
        assert waiter.result() > seen
    assert max(delays) < 1.0
    assert min(delays) < 0.05


async def test_a_commit_of_another_that_came_before_the_wait_ends_it_at_once(
    store: SessionStore, other: SessionStore, subject: Subject
) -> None:
    seen = await settle(store)
    await commit(other, subject)
    assert await took(store.wait_change(seen, FOREVER)) < SOON
    seen = await settle(store)
    await commit(store, subject)
    assert await took(store.wait_change(seen, FOREVER)) < SOON


async def test_nothing_ends_a_wait_but_a_change_or_its_timeout(
    store: SessionStore, subject: Subject
) -> None:
    seen = await settle(store)
    begun = time.monotonic()
    assert await store.wait_change(seen, 0.2) == seen
    assert 0.19 < time.monotonic() - begun < 0.2 + SOON
    assert await took(store.wait_change(seen, 0.0)) < SOON


@pytest.mark.parametrize("whose", ["own", "another's"])
async def test_one_commit_wakes_all_who_wait(
    store: SessionStore, other: SessionStore, subject: Subject, whose: str
) -> None:
    seen = await settle(store)
    waiters = [asyncio.create_task(store.wait_change(seen, FOREVER)) for _ in range(50)]
    await anyio.lowlevel.checkpoint()
    await commit(store if whose == "own" else other, subject)
    assert await took(asyncio.gather(*waiters)) < SOON
    assert all(waiter.result() > seen for waiter in waiters)


@pytest.mark.parametrize("leaves", ["cancelled", "cancelled in a scope", "timed out"])
async def test_who_leaves_does_not_take_the_others_wake_up_with_him(
    store: SessionStore, other: SessionStore, subject: Subject, leaves: str
) -> None:
    """The first who waits looks for all, so each of them in turn leaves while the others wait on."""
    seen = await settle(store)
    scopes: list[anyio.CancelScope] = []

    async def wait(place: int) -> int:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            leaving = leaves == "timed out" and place < 3
            return await store.wait_change(seen, 0.05 * (place + 1) if leaving else FOREVER)
        return -1

    waiters: list[asyncio.Task[int]] = []
    for place in range(6):
        waiters.append(asyncio.create_task(wait(place)))
        await anyio.lowlevel.checkpoint()
    for place in range(3):
        if leaves == "cancelled":
            waiters[place].cancel()
        elif leaves == "cancelled in a scope":
            scopes[place].cancel()
        await wait_until(waiters[place].done, "the first who waited has left")
    await commit(other, subject)
    assert await took(asyncio.gather(*waiters[3:])) < SOON
    assert all(waiter.result() > seen for waiter in waiters[3:])


async def test_a_cancelled_wait_is_cancelled_also_when_a_change_comes_with_it(
    store: SessionStore, subject: Subject
) -> None:
    await settle(store)
    for _ in range(50):
        waiters = [asyncio.create_task(store.wait_change(store.changes(), 5.0)) for _ in range(2)]
        await anyio.lowlevel.checkpoint()
        store.nudge()
        for waiter in waiters:
            waiter.cancel()
        ended = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(end) for end in ended] == [asyncio.CancelledError] * 2


async def test_a_nudge_wakes_all_who_wait_on_this_object_and_nobody_else(
    store: SessionStore, other: SessionStore
) -> None:
    seen, theirs = await settle(store), await settle(other)
    waiters = [asyncio.create_task(store.wait_change(seen, FOREVER)) for _ in range(3)]
    elsewhere = asyncio.create_task(other.wait_change(theirs, 0.1))
    await anyio.lowlevel.checkpoint()
    store.nudge()
    assert await took(asyncio.gather(*waiters)) < SOON
    assert await elsewhere == theirs


@pytest.mark.parametrize("by", ["commit", "nudge"])
async def test_own_news_need_no_look(
    backend: Backend,
    store: SessionStore,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    seen = await settle(store)
    backend.look_rarely(monkeypatch)
    waiters = [asyncio.create_task(store.wait_change(seen, FOREVER)) for _ in range(3)]
    await anyio.lowlevel.checkpoint()
    if by == "nudge":
        store.nudge()
    else:
        await commit(store, subject)
    assert await took(asyncio.gather(*waiters)) < SOON


async def test_who_comes_urgently_hurries_those_who_wait_already(
    backend: Backend,
    store: SessionStore,
    other: SessionStore,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = await settle(store)
    backend.look_rarely(monkeypatch)
    patient = asyncio.create_task(store.wait_change(seen, FOREVER))
    await anyio.lowlevel.checkpoint()
    urgent = asyncio.create_task(store.wait_change(seen, FOREVER, urgent=True))
    await anyio.lowlevel.checkpoint()
    await commit(other, subject)
    assert await took(asyncio.gather(patient, urgent)) < SOON


async def test_when_the_urgent_one_has_gone_the_others_look_at_their_leisure_again(
    backend: Backend,
    store: SessionStore,
    other: SessionStore,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = await settle(store)
    backend.look_rarely(monkeypatch)
    urgent = asyncio.create_task(store.wait_change(seen, FOREVER, urgent=True))
    patient = asyncio.create_task(store.wait_change(seen, 0.3))
    await anyio.lowlevel.checkpoint()
    urgent.cancel()
    await wait_until(urgent.done, "the urgent one has gone")
    await anyio.sleep(0.05)  # time to look once more and to settle down to an hour
    await commit(other, subject)
    assert await patient == seen
