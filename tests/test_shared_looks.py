"""Looks that many share: one look for all, never an old one, and nobody waits for who has gone."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from bilt_mcp.server import shared_looks
from bilt_mcp.server.shared_looks import SharedLooks
from bilt_mcp.state import SessionNotFound
from bilt_mcp.tools.watching import Look

from .support.waiting import wait_until

pytestmark = pytest.mark.anyio


class Resource:
    """Something that is looked at, as slowly as a test wants."""

    def __init__(self) -> None:
        self.looks = 0
        self.may_see = anyio.Event()
        self.gone = False

    async def look(self) -> Look:
        self.looks += 1
        found = Look(self.looks)
        await self.may_see.wait()
        if self.gone:
            raise SessionNotFound("gone")
        return found


@pytest.fixture
def resource() -> Resource:
    return Resource()


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(shared_looks, "FRESH_SECONDS", 60.0)


async def seen(looks: SharedLooks, resource: Resource, found: list[object], what: str) -> None:
    try:
        found.append((await looks.look(what, 1, resource.look)).mark)
    except SessionNotFound as error:
        found.append(error)


async def test_many_who_look_at_once_look_once(resource: Resource) -> None:
    looks, found = SharedLooks(), list[object]()
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(seen, looks, resource, found, "it")
        await wait_until(lambda: resource.looks > 0, "one looks")
        resource.may_see.set()
    assert found == [1] * 10
    assert (await looks.look("it", 1, resource.look)).mark == 1


async def test_who_knows_of_a_later_change_looks_anew(resource: Resource) -> None:
    looks = SharedLooks()
    resource.may_see.set()
    assert (await looks.look("it", 1, resource.look)).mark == 1
    assert (await looks.look("it", 2, resource.look)).mark == 2


async def test_what_changes_by_the_clock_is_looked_at_anew(
    resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_looks, "FRESH_SECONDS", 0.0)
    looks = SharedLooks()
    resource.may_see.set()
    assert (await looks.look("it", 1, resource.look)).mark == 1
    assert (await looks.look("it", 1, resource.look)).mark == 2


async def test_different_things_and_different_callers_are_looked_at_apart(
    resource: Resource,
) -> None:
    looks = SharedLooks()
    resource.may_see.set()
    assert (await looks.look(("alice", "it"), 1, resource.look)).mark == 1
    assert (await looks.look(("eve", "it"), 1, resource.look)).mark == 2


async def test_when_the_one_who_looks_goes_another_one_looks(resource: Resource) -> None:
    looks, found = SharedLooks(), list[object]()
    first = anyio.CancelScope()

    async def look_and_go() -> None:
        with first:
            await seen(looks, resource, found, "it")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look_and_go)
        await wait_until(lambda: resource.looks == 1, "the first looks")
        tasks.start_soon(seen, looks, resource, found, "it")
        await anyio.lowlevel.checkpoint()
        first.cancel()
        await wait_until(lambda: resource.looks == 2, "the second looks")
        resource.may_see.set()
    assert found == [2]


async def test_that_it_is_gone_is_told_to_all_and_not_kept(resource: Resource) -> None:
    looks, found = SharedLooks(), list[object]()
    resource.gone = True
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(seen, looks, resource, found, "it")
        await wait_until(lambda: resource.looks > 0, "one looks")
        resource.may_see.set()
    assert [type(each) for each in found] == [SessionNotFound] * 3
    resource.gone = False
    assert (await looks.look("it", 1, resource.look)).mark == 2
