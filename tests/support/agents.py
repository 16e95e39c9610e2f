"""An agent at the tools, in this process, and a hand that does a worker's part as slowly as a test wants."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncGenerator, Callable
from functools import cache
from importlib import import_module
from typing import Any

import pytest
from mcp import Client
from mcp_types import CallToolResult, Implementation, TextContent

from bilt_mcp import engine
from bilt_mcp.engine import LocalEngine
from bilt_mcp.server import app, create_server
from bilt_mcp.state import (
    Claim,
    DeployState,
    Failure,
    FailureCode,
    Note,
    ProcessRecord,
    SqliteStore,
    Stopped,
)
from bilt_mcp.tools import build_tools

from .places import Place

Json = dict[str, Any]

UNKNOWN = "00000000-0000-4000-8000-000000000000"
"""An id that nothing has."""
UUID_TOLD = "must be a UUID, such as 550e8400-e29b-41d4-a716-446655440000"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
DEPLOYING = """
[[step]]
name = "build"
run = "true"
[[step]]
name = "ship it"
run = "true"
deploy = true
confirm = "Ship?"
"""

AGENT = Implementation(name="by-hand", version="1")
PROCESS = ProcessRecord("boot", 4_000_000, 1)
"""No process: what a step that was never started is recorded as."""

validator: Callable[..., Any] = import_module("jsonschema").Draft202012Validator


@cache
def _validator_of(tool: str) -> Any:
    return validator(build_tools()[tool].output_schema)


class StillEngine(LocalEngine):
    """The real engine, except that it starts no worker: it only counts how often it was asked to."""

    wakes = 0

    async def wake(self, *, news: bool = True) -> None:
        self.wakes += 1


class Agent:
    """Calls tools, and holds every answer to what all answers promise."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def text(self, tool: str, **arguments: Any) -> str:
        """The text of an answer, which is its structured content."""
        return checked(tool, await self.client.call_tool(tool, arguments))

    async def call(self, tool: str, **arguments: Any) -> Json:
        """The structured content of an answer, success or failure."""
        found: Json = json.loads(await self.text(tool, **arguments))
        return found

    async def session_id(self) -> str:
        return str((await self.call("bilt_get_session"))["session_id"])

    async def start(self, message: str = "build", **arguments: Any) -> tuple[str, str]:
        """Start a workflow; returns the ids of the session and the workflow."""
        session_id = await self.session_id()
        started = await self.call(
            "bilt_send_message", session_id=session_id, message=message, **arguments
        )
        return session_id, str(started["workflow_id"])


def checked(tool: str, result: CallToolResult) -> str:
    """The text of a result, after everything that holds for all of them was looked at."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    structured = json.loads(content.text)
    assert structured == result.structured_content
    assert content.text.encode()
    if result.is_error:
        assert set(structured) == {"error", "details"}
        assert 0 < len(structured["details"]["message"]) < 500
    else:
        assert "error" not in structured
    if tool in build_tools():
        _validator_of(tool).validate(structured)
    return content.text


@contextlib.asynccontextmanager
async def agent_at(
    place: Place, account: str = "local", mode: str = "legacy"
) -> AsyncGenerator[Agent]:
    """An agent that is connected to a server for `place`, in this process."""
    server = create_server(place.config(account))
    async with Client(server, mode=mode, client_info=AGENT) as client:
        yield Agent(client)


class Hand:
    """Does what a worker does, one verb at a time, and starts no process."""

    def __init__(self, store: SqliteStore, epoch: int) -> None:
        self.store = store
        self.epoch = epoch

    async def claim(self) -> Claim:
        claim = await self.store.claim(self.epoch)
        assert claim is not None
        return claim

    async def begin(self, claim: Claim) -> None:
        assert await self.store.begin_step(claim, 1, PROCESS) is not None

    async def do_step(self, claim: Claim) -> None:
        """Begin the claim's step and end it well."""
        ticket = await self.store.begin_step(claim, 1, PROCESS)
        assert ticket is not None
        await self.store.step_ended(ticket, "succeeded", 0)

    async def say(self, claim: Claim, *contents: str, variant: Any = "log") -> None:
        notes = [Note(content, variant, claim.plan.steps[0].name) for content in contents]
        await self.store.note(claim, notes, wrote_output=True)

    async def complete(self, claim: Claim) -> None:
        assert await self.store.complete(claim, [Note("Done.", "success")])

    async def fail(self, claim: Claim) -> None:
        failure = Failure(FailureCode.STEP_FAILED, "Step build ended with 3.", "build", 3)
        assert await self.store.fail(claim, failure, [Note("Step build ended with 3.", "error")])

    async def pause(self, claim: Claim, question: str) -> None:
        assert await self.store.pause(claim, question)

    async def stopped(self, claim: Claim, killed: int = 2) -> None:
        receipt = Stopped(True, killed, 0, 0.0, "build", DeployState.NOT_STARTED)
        assert await self.store.stopped(self.epoch, claim.workflow_id, receipt, [])


@contextlib.asynccontextmanager
async def hand_at(place: Place) -> AsyncGenerator[Hand]:
    async with SqliteStore(place.location) as store:
        yield Hand(store, await store.take_over(PROCESS, "test"))


async def waiting(agent: Agent) -> None:
    """Return when a call that was just started is being held: the server has answered a later one."""
    for _ in range(3):
        await agent.call("bilt_get_session")


def invalid(*problems: tuple[str, str]) -> Json:
    """The answer to arguments with these problems, word for word."""
    told = "; ".join(f"{field}: {message}" for field, message in problems)
    return {
        "error": "Invalid arguments",
        "details": {
            "fields": [{"field": field, "message": message} for field, message in problems],
            "message": f"Nothing was done. Correct and call again: {told}",
        },
    }


NO_SESSION = {
    "error": "Session not found",
    "details": {
        "message": "No session with this id. Call bilt_get_session without session_id to get the project's session."
    },
}

# -- fixtures: a module that imports them has them -----------------------------------------------

TOOLS = cache(build_tools)  # what takes longest in making a server


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> list[StillEngine]:
    """No server of the module's tests starts a worker; the engines that they made."""
    made: list[StillEngine] = []

    class Made(StillEngine):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(engine, "LocalEngine", Made)
    monkeypatch.setattr(app, "build_tools", TOOLS)
    return made


@pytest.fixture
async def agent(place: Place) -> AsyncGenerator[Agent]:
    async with agent_at(place) as found:
        yield found


@pytest.fixture
async def hand(place: Place) -> AsyncGenerator[Hand]:
    async with hand_at(place) as found:
        yield found
