"""The contract of a store: what was read is what would be read, for as long as its version is the same."""

from __future__ import annotations

import pytest

from bilt_mcp.state import ProjectNotFound, SessionStore

from .store_contract import ME, SOMEBODY_ELSE, OpenStore, Scene

pytestmark = pytest.mark.anyio


async def test_the_version_is_another_one_after_each_commit_of_any_store_object(
    store: SessionStore, other: SessionStore, scene: Scene
) -> None:
    seen = [store.version()]
    for number in range(3):
        for writer in (store, other):
            await writer.open_project(ME, f"/srv/{writer is store}/{number}", "shop")
            assert store.version() != seen[-1]
            seen.append(store.version())
    session_id = await scene.session()
    seen.append(store.version())
    for _ in range(3):
        await store.session(ME, session_id)
        await other.session(ME, session_id)
        assert store.version() == seen[-1]


async def test_a_store_that_is_closed_has_no_version(open_store: OpenStore) -> None:
    async with open_store() as store:
        assert store.version() is not None
    assert store.version() is None


async def test_projects_are_read_on_from_any_of_them(store: SessionStore) -> None:
    made = [(await store.open_project(ME, f"/srv/{n}", f"p{n}")).id for n in range(4)]
    foreign = await store.open_project(SOMEBODY_ELSE, "/srv/0", "p0")
    newest = [project.id for project in await store.projects(ME)]
    assert newest == made[::-1]
    for place, project_id in enumerate(newest):
        found = await store.projects(ME, project_id)
        assert [project.id for project in found] == newest[place + 1 :]
    with pytest.raises(ProjectNotFound):
        await store.projects(ME, foreign.id)
