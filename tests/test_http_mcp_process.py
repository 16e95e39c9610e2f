"""MCP over HTTP against `bilt-mcp serve` as anybody starts it: every tool, in both eras, and together with stdio."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp.client import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from bilt_mcp.tools import TOOLS

from .support.agents import Agent, Json
from .support.http import Served, key_in, serve_process
from .support.http_site import ERAS, mcp_client
from .support.places import Place, open_place
from .support.rpc import PATIENCE, Server

pytestmark = pytest.mark.anyio

WORKFLOW = """
[[step]]
name = "build"
run = "echo built"

[[step]]
name = "ask"
when = "ask"
run = "true"
confirm = "Go on?"

[[step]]
name = "hold"
when = "hold"
run = "until test -e go; do sleep 0.02; done; rm go"

[[step]]
name = "serve"
when = "serve"
run = "sleep 1000 & sleep 1000"
"""


@dataclass
class Shop:
    """A server, and what its clients need."""

    place: Place
    url: str
    key: str

    @asynccontextmanager
    async def agent(self, era: str) -> AsyncGenerator[Agent]:
        """An agent, before whose client there is a person who says yes."""

        async def person(_: ClientRequestContext, question: ElicitRequestParams) -> ElicitResult:
            return ElicitResult(action="accept", content={"confirm": "Go on?" in question.message})

        async with mcp_client(self.url, self.key, era, elicitation_callback=person) as client:
            yield Agent(client)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:
    with open_place(tmp_path_factory.mktemp("shop")) as place:
        place.workflow(WORKFLOW)
        key = anyio.run(key_in, place.config())
        with serve_process(place.arguments, place.environ) as server:
            yield Shop(place, f"{server.url}/mcp", key)
            server.stop()
            assert server.exit_code() == 0


async def reached(agent: Agent, session_id: str, status: str) -> Json:
    """The session as soon as its status is this one."""
    found = await agent.call("bilt_get_session", session_id=session_id)
    while found["status"] != status:
        known = {"wait_seconds": 20, "after_revision": found["revision"]}
        found = await agent.call("bilt_get_session", session_id=session_id, **known)
    return found


@pytest.mark.parametrize("era", ERAS)
async def test_every_tool_works_as_over_stdio(shop: Shop, era: str) -> None:
    called: set[str] = set()
    async with shop.agent(era) as agent:

        async def call(tool: str, **arguments: object) -> Json:
            called.add(tool)
            answer = await agent.call(tool, **arguments)
            assert "error" not in answer, answer
            return answer

        async def gate() -> Json:
            found = await reached(agent, session_id, "paused")
            return {"session_id": session_id, "action_id": found["pending_action"]["action_id"]}

        listed = [tool.name for tool in (await agent.client.list_tools()).tools]
        assert listed == [tool.name for tool in TOOLS]
        session_id = (await call("bilt_get_session"))["session_id"]
        of = {"session_id": session_id}
        done = await call("bilt_send_message", **of, message="build", wait_for_response=True)
        assert done["status"] == "completed"
        read = await call("bilt_get_messages", **of)
        assert "built" in [message["content"] for message in read["messages"]]

        await call("bilt_send_message", **of, message="ask")
        await call("bilt_confirm_action", **await gate())
        await reached(agent, session_id, "completed")
        await call("bilt_send_message", **of, message="ask")
        await call("bilt_cancel_action", **await gate())

        await call("bilt_send_message", **of, message="hold, and serve")
        await call("bilt_pause_workflow", **of)
        (shop.place.project / "go").touch()
        await reached(agent, session_id, "paused")
        await call("bilt_resume_workflow", **of)
        await reached(agent, session_id, "running")
        stopped = (await call("bilt_cancel_workflow", **of, reason="enough"))["stopped"]
        assert stopped["verified"] is True

        first = (await call("bilt_list_projects"))["projects"][0]
        await call("bilt_get_project", project_id=first["id"])
        await call("bilt_create_project", name=f"made-by-{era}")
    assert called == {tool.name for tool in TOOLS}


@pytest.mark.parametrize("era", ERAS)
async def test_what_one_way_started_the_other_one_cancels(shop: Shop, era: str) -> None:
    async with shop.agent(era) as agent:
        with Server(shop.place.arguments, shop.place.environ) as stdio:
            session_id, _ = await agent.start("serve")
            await reached(agent, session_id, "running")
            cancelled = await anyio.to_thread.run_sync(
                lambda: stdio.call("bilt_cancel_workflow", session_id=session_id)
            )
            assert cancelled["stopped"]["verified"] is True
            assert (await reached(agent, session_id, "cancelled"))["workflow_id"]

            started = await anyio.to_thread.run_sync(
                lambda: stdio.call("bilt_send_message", session_id=session_id, message="serve")
            )
            await reached(agent, session_id, "running")
            cancelled = await agent.call("bilt_cancel_workflow", session_id=session_id)
            assert cancelled["workflow_id"] == started["workflow_id"]
            assert cancelled["stopped"]["verified"] is True


async def open_requests(server: Served) -> float:
    """How many requests it is answering, this one among them."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        told = (await http.get(f"{server.url}/metrics")).text
    (found,) = re.findall(r"^bilt_http_open_requests (\S+)$", told, re.MULTILINE)
    return float(found)


async def test_one_who_waits_gets_an_answer_when_the_server_is_told_to_stop(
    tmp_path: Path,
) -> None:
    with open_place(tmp_path) as place:
        place.workflow(WORKFLOW)
        key = await key_in(place.config())
        with serve_process(place.arguments, place.environ) as server:
            shop = Shop(place, f"{server.url}/mcp", key)
            told: list[Json] = []
            async with shop.agent("legacy") as agent, shop.agent("auto") as other:
                session_id, _ = await agent.start("serve")
                found = await reached(agent, session_id, "running")

                async def wait(waits: Agent) -> None:
                    known = {"wait_seconds": 45, "after_revision": found["revision"] + 100}
                    told.append(
                        await waits.call("bilt_get_session", session_id=session_id, **known)
                    )

                # With its first answer the SDK asks for schemas, too.
                await other.call("bilt_list_projects")
                before = await open_requests(server)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait, agent)
                    tasks.start_soon(wait, other)
                    while await open_requests(server) < before + 2:
                        pass
                    server.stop(signal.SIGTERM)
            assert [each["status"] for each in told] == ["running", "running"]
            assert await anyio.to_thread.run_sync(server.exit_code) == 0
        with serve_process(place.arguments, place.environ) as server:
            shop = Shop(place, f"{server.url}/mcp", key)
            async with shop.agent("auto") as agent:
                assert (await agent.call("bilt_get_session"))["status"] == "running"
                await agent.call("bilt_cancel_workflow", session_id=session_id)
