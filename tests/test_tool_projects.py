"""`bilt_list_projects`, `bilt_get_project` and `bilt_create_project` (CONTRACT section 2)."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from bilt_mcp.engine.workflow_file import load
from bilt_mcp.state import Caller, Status, SystemClock

from .support.agents import STAMP, UNKNOWN, UUID_TOLD, Agent, agent_at, invalid
from .support.agents import agent as agent  # a fixture, like the next
from .support.agents import still as still
from .support.builds import ME, build_in
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio

NAME_TOLD = "must be letters, digits, hyphens and underscores"


def projects(place: Place) -> Path:
    return place.location.folder / "projects"


async def test_a_new_project_is_a_folder_with_a_file_that_can_be_used(
    agent: Agent, place: Place
) -> None:
    made = await agent.call(
        "bilt_create_project",
        name="web-shop_2",
        description='Sells "things"\n\x1b[1mfast',
        visibility="PRIVATE",
    )
    folder = projects(place) / "web-shop_2"
    assert STAMP.fullmatch(made["created_at"])
    assert made == {
        "id": made["id"],
        "name": "web-shop_2",
        "description": 'Sells "things"\n\x1b[1mfast',
        "visibility": "private",
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        "folder": str(folder),
    }
    assert await agent.call("bilt_get_project", project_id=made["id"]) == made
    file = load(folder)
    assert [step.name for step in file.select("anything")] == ["build"]
    told = tomllib.loads((folder / "bilt.toml").read_text("utf-8"))["project"]
    assert told == {"name": "web-shop_2", "description": 'Sells "things" [1mfast'}


async def test_a_new_project_runs(tmp_path: Path) -> None:
    async with build_in(tmp_path) as build:
        new = build.engine.new_project("fresh", "")
        project = await build.store.create_project(
            ME, new.root, "fresh", Caller("a test"), new.make
        )
        session = await build.store.latest_session(ME, project.id)
        fresh = replace(build, project=project, session_id=session.id)
        await fresh.start("go; $(touch injected) 'x")
        await fresh.until(Status.COMPLETED)
        assert os.listdir(new.root) == ["bilt.toml"]


async def test_a_session_of_another_project_works_there(agent: Agent, place: Place) -> None:
    made = await agent.call("bilt_create_project", name="other")
    session = await agent.call("bilt_get_session", project_id=made["id"])
    assert session["project_id"] == made["id"]
    started = await agent.call("bilt_send_message", session_id=session["session_id"], message="go")
    assert started["status"] == "pending"
    assert (await agent.call("bilt_get_session"))["project_id"] != made["id"]


async def test_projects_are_listed_newest_first_and_only_to_their_account(
    agent: Agent, place: Place
) -> None:
    await agent.call("bilt_get_session")
    for name in ("a", "b"):
        await agent.call("bilt_create_project", name=name)
    found = (await agent.call("bilt_list_projects"))["projects"]
    assert [project["name"] for project in found] == ["b", "a", "project"]
    assert found[2]["folder"] == str(place.project)
    async with agent_at(place, "somebody else") as other:
        theirs = (await other.call("bilt_list_projects"))["projects"]
        assert [project["name"] for project in theirs] == ["project"]
        foreign = await other.text("bilt_get_project", project_id=found[0]["id"])
        assert foreign == await other.text("bilt_get_project", project_id=UNKNOWN)
        assert "Project not found" in foreign


async def test_a_name_is_taken_once(agent: Agent, place: Place) -> None:
    await agent.call("bilt_create_project", name="shop")
    kept = (projects(place) / "shop" / "bilt.toml").read_text()
    again = await agent.call("bilt_create_project", name="shop", description="another")
    assert again["error"] == "Project already exists"
    assert (projects(place) / "shop" / "bilt.toml").read_text() == kept
    assert place.count("project") == 2
    # The account's own folders have names, too.
    assert (await agent.call("bilt_create_project", name="project"))["error"] == (
        "Project already exists"
    )


async def test_nothing_that_is_there_already_is_written_over(agent: Agent, place: Place) -> None:
    await agent.session_id()
    for name in ("file", "folder", "half"):
        projects(place).mkdir(exist_ok=True)
        where = projects(place) / name
        if name == "file":
            where.write_text("mine")
        else:
            where.mkdir()
            (where / ("bilt.toml" if name == "folder" else "notes")).write_text("mine")
        found = await agent.call("bilt_create_project", name=name)
        if name == "half":
            assert found["name"] == name  # a folder without a workflow file gets one
        else:
            assert found["error"] == "Project already exists"
            assert str(where) in found["details"]["message"]
    assert (projects(place) / "file").read_text() == "mine"
    assert (projects(place) / "folder" / "bilt.toml").read_text() == "mine"
    assert place.count("project") == 2


async def test_a_project_of_a_killed_process_can_be_created_again(
    agent: Agent, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.call("bilt_create_project", name="first")
    text = (projects(place) / "first" / "bilt.toml").read_text()
    (projects(place) / "second").mkdir()
    (projects(place) / "second" / "bilt.toml").write_text(text.replace("first", "second"))
    assert (await agent.call("bilt_create_project", name="second"))["name"] == "second"


async def test_a_folder_that_cannot_be_made_is_an_answer_and_leaves_no_project(
    agent: Agent, place: Place
) -> None:
    await agent.session_id()
    projects(place).write_text("in the way")
    found = await agent.call("bilt_create_project", name="shop")
    assert found["error"] == "Internal error"
    assert "cannot write to" in found["details"]["message"]
    assert place.count("project") == 1


async def test_ten_an_hour_may_be_created(
    agent: Agent, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        assert (await agent.call("bilt_create_project", name=f"p{number}"))["name"]
    await agent.call("bilt_create_project", name="p0")  # a refused one costs nothing
    found = await agent.call("bilt_create_project", name="p10")
    assert found["error"] == "Rate limit exceeded"
    details = found["details"]
    assert (details["limit"], details["remaining"]) == (10, 0)
    assert 3590 <= details["retry_after_seconds"] <= 3600
    assert not (projects(place) / "p10").exists()
    later = SystemClock().now() + 3_600_000

    def now(clock: SystemClock) -> int:
        return later

    monkeypatch.setattr(SystemClock, "now", now)
    assert (await agent.call("bilt_create_project", name="p10"))["name"] == "p10"


@pytest.mark.parametrize(
    ("argument", "value", "told"),
    [
        ("name", "", NAME_TOLD),
        ("name", "a b", NAME_TOLD),
        ("name", "..", NAME_TOLD),
        ("name", "a/b", NAME_TOLD),
        ("name", "größe", NAME_TOLD),
        ("name", "a\n", NAME_TOLD),
        ("name", "a" * 256, "must have at most 255 characters"),
        ("description", "d" * 1001, "must have at most 1000 characters"),
        ("visibility", "public", "input should be 'PUBLIC' or 'PRIVATE'"),
    ],
)
async def test_a_wrong_argument_is_refused_and_named(
    agent: Agent, place: Place, argument: str, value: str, told: str
) -> None:
    found = await agent.call("bilt_create_project", **{"name": "shop", argument: value})
    assert found == invalid((argument, told))


async def test_limits_are_within(agent: Agent, place: Place) -> None:
    made = await agent.call("bilt_create_project", name="n" * 255, description="d" * 1000)
    assert (len(made["name"]), len(made["description"])) == (255, 1000)


@pytest.mark.parametrize("project_id", ["", "p", UNKNOWN[:-1]])
async def test_a_malformed_project_id_is_bad_input(agent: Agent, project_id: str) -> None:
    found = await agent.call("bilt_get_project", project_id=project_id)
    assert found == invalid(("project_id", UUID_TOLD))
