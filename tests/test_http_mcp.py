"""MCP over HTTP, seen from inside of the server: every credential in a world of its own, and nothing that leaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from mcp.shared.exceptions import MCPError

from bilt_mcp.tools import TOOLS

from .support.agents import NO_SESSION, UNKNOWN, Json
from .support.agents import still as still  # a fixture, like the next one
from .support.http_site import ERAS, HttpSite, Wire, answer, site_at
from .support.memory_wire import TASK_CAPABILITIES
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio

CHANGES = [tool.name for tool in TOOLS if not tool.read_only]


@pytest.fixture
async def site(place: Place) -> AsyncGenerator[HttpSite]:
    async with site_at(place) as found:
        yield found


# -- who is who ----------------------------------------------------------------------------------


async def test_keys_of_one_account_see_the_same_sessions_and_those_of_another_nothing(
    site: HttpSite,
) -> None:
    async with site.agent("alice") as alice, site.agent("bob") as bob, site.agent("eve") as eve:
        session_id, workflow_id = await alice.start()
        assert await bob.session_id() == session_id
        assert await eve.call("bilt_get_session", session_id=session_id) == NO_SESSION
        assert await eve.call("bilt_get_session", session_id=UNKNOWN) == NO_SESSION
        assert (await eve.call("bilt_get_session"))["error"] == "Project not found"
        assert await eve.call("bilt_list_projects") == {"projects": []}
        assert (await eve.client.list_resources()).resources == []
        with pytest.raises(MCPError):
            await eve.client.read_resource(f"bilt://workflows/{workflow_id}")
        cancelled = await bob.call("bilt_cancel_workflow", session_id=session_id)
        assert cancelled["status"] == "cancelled"


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_the_http_session_of_one_key_is_unknown_to_every_other(
    site: HttpSite, method: str
) -> None:
    async with site.wire("alice") as alice, site.wire("bob") as bob:
        await alice.handshake()
        foreign = await bob.request(method, alice.session)
        unknown = await bob.request(method, "0" * 32)
        assert (foreign.status_code, foreign.text) == (unknown.status_code, unknown.text)
        assert foreign.status_code == 404
        assert (await alice.ask("tools/list"))["result"]["tools"]


async def test_the_task_of_one_account_is_unknown_to_every_other(site: HttpSite) -> None:
    async with site.agent("alice") as alice, site.wire("eve") as eve, site.wire("bob") as bob:
        _, workflow_id = await alice.start()

        async def ask(wire: Wire, method: str, task_id: str, about: str = "") -> Json:
            given: Json = {
                "taskId": task_id,
                "inputResponses": {},
                "capabilities": TASK_CAPABILITIES,
            }
            told = answer(await wire.modern(method, about or task_id, **given))
            return {key: told[key] for key in ("result", "error") if key in told}

        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            foreign = await ask(eve, method, workflow_id)
            assert foreign == await ask(eve, method, UNKNOWN)
            assert foreign["error"]["code"] == -32602
        assert (await ask(bob, "tasks/get", workflow_id, UNKNOWN))["error"]["code"] == -32020
        assert (await ask(bob, "tasks/get", workflow_id))["result"]["status"] == "working"
        assert "result" in await ask(bob, "tasks/cancel", workflow_id)
        assert (await alice.call("bilt_get_session"))["status"] == "cancelled"


async def test_the_history_knows_the_key_and_the_way_that_a_caller_came(
    site: HttpSite, place: Place
) -> None:
    async with site.agent("alice", "legacy") as alice, site.agent("bob") as bob:
        session_id, _ = await alice.start()
        await bob.call("bilt_cancel_workflow", session_id=session_id)
    audit = place.rows("SELECT action, principal, client, surface FROM audit ORDER BY n")
    assert audit == [
        ("start", "key alice", "by-hand 1", "mcp http"),
        ("cancel", "key bob", "by-hand 1", "mcp http"),
    ]


# -- read-only -----------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_read_only_key_is_shown_only_what_reads(site: HttpSite, era: str) -> None:
    async with site.client("reader", era) as client:
        shown = [tool.name for tool in (await client.list_tools()).tools]
        assert shown == [tool.name for tool in TOOLS if tool.read_only]


async def test_a_read_only_key_changes_nothing_with_any_tool(site: HttpSite, place: Place) -> None:
    async with site.agent("alice") as alice, site.agent("reader") as reader:
        session_id, _ = await alice.start()
        before = place.rows("SELECT * FROM workflow"), place.count("audit"), place.count("project")
        for tool in CHANGES:
            for arguments in ({"session_id": session_id}, {"nonsense": 1}):
                told = await reader.call(tool, **arguments)
                assert told["error"] == "Permission denied"
                assert tool in told["details"]["message"]
        found = await reader.call("bilt_get_session", session_id=session_id)
        assert found["status"] == "pending"
    after = place.rows("SELECT * FROM workflow"), place.count("audit"), place.count("project")
    assert after == before


async def test_for_a_read_only_key_no_session_is_begun(site: HttpSite, place: Place) -> None:
    async with site.agent("reader") as reader, site.agent("alice") as alice:
        told = await reader.call("bilt_get_session")
        assert told["error"] == "Session not found"
        assert "read-only" in told["details"]["message"]
        assert place.count("session") == 0
        told = await reader.call("bilt_get_session", project_id=UNKNOWN)
        assert told["error"] == "Project not found"
        session_id = await alice.session_id()
        assert (await reader.call("bilt_get_session"))["session_id"] == session_id


async def test_a_read_only_key_does_nothing_to_a_task(site: HttpSite) -> None:
    async with site.agent("alice") as alice, site.wire("reader") as reader:
        _, workflow_id = await alice.start()
        for method in ("tasks/cancel", "tasks/update", "tasks/whatever"):
            found = await reader.modern(
                method,
                workflow_id,
                taskId=workflow_id,
                inputResponses={},
                capabilities=TASK_CAPABILITIES,
            )
            assert answer(found)["error"]["data"]["error"] == "Permission denied"
        found = await reader.modern(
            "tasks/get", workflow_id, taskId=workflow_id, capabilities=TASK_CAPABILITIES
        )
        assert answer(found)["result"]["status"] == "working"
        assert (await alice.call("bilt_get_session"))["status"] == "pending"


async def test_a_key_for_one_project_makes_no_other(site: HttpSite, place: Place) -> None:
    async with site.agent("alice") as alice:
        mine = (await alice.call("bilt_list_projects"))["projects"][0]["id"]
    await site.make_key("limited", project=mine)
    async with site.agent("limited") as limited:
        told = await limited.call("bilt_create_project", name="another")
        assert told["error"] == "Permission denied"
        assert place.count("project") == 1
        assert (await limited.call("bilt_get_session"))["project_id"] == mine
