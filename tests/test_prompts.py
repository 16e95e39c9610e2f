"""Prompts: the patterns of use, with what was filled in, and errors that say what is wrong."""

from __future__ import annotations

import re

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent

from bilt_mcp.tools import build_tools

from .support.agents import UNKNOWN, Agent
from .support.agents import agent as agent  # a fixture
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio

NAMES = ["watch_build", "debug_failed_build", "start_over", "cancel_with_confirmation"]
NEEDED = {"start_over": {"message": "build it all"}}


async def got(client: Client, name: str, **arguments: str) -> str:
    """The text of a prompt."""
    (message,) = (await client.get_prompt(name, arguments)).messages
    assert message.role == "user"
    assert isinstance(message.content, TextContent)
    return message.content.text


async def refused(client: Client, name: str, **arguments: str) -> str:
    with pytest.raises(MCPError) as error:
        await client.get_prompt(name, arguments)
    assert error.value.error.code == -32602
    assert len(error.value.error.message) < 500
    return error.value.error.message


async def test_there_is_a_prompt_for_each_documented_pattern(agent: Agent, place: Place) -> None:
    listed = (await agent.client.list_prompts()).prompts
    assert [prompt.name for prompt in listed] == NAMES
    assert all(prompt.title and prompt.description for prompt in listed)
    required = {
        prompt.name: [a.name for a in prompt.arguments or [] if a.required] for prompt in listed
    }
    assert required.pop("start_over") == ["message"]
    assert not any(required.values())
    assert not place.location.database.exists()


@pytest.mark.parametrize("name", NAMES)
async def test_a_prompt_names_only_tools_that_there_are_and_the_session_to_use(
    agent: Agent, name: str
) -> None:
    text = await got(agent.client, name, **NEEDED.get(name, {}))
    assert set(re.findall(r"bilt_\w+", text)) <= set(build_tools())
    assert "bilt_get_session()" in text
    chosen = await got(agent.client, name, session_id=UNKNOWN.upper(), **NEEDED.get(name, {}))
    assert f"the session {UNKNOWN}" in chosen
    assert "bilt_get_session()" not in chosen
    assert len(chosen) < 2000


async def test_what_was_filled_in_stands_in_the_prompt(agent: Agent) -> None:
    hard = "deploy {message} %s \\1\n$(reboot)"
    assert hard in await got(agent.client, "start_over", message=hard)
    assert "too slow" in await got(agent.client, "cancel_with_confirmation", reason="too slow")
    empty = await got(agent.client, "cancel_with_confirmation", reason="", session_id="")
    assert empty == await got(agent.client, "cancel_with_confirmation")


async def test_a_person_is_asked_before_anything_is_stopped(agent: Agent) -> None:
    for name in ("start_over", "cancel_with_confirmation"):
        text = await got(agent.client, name, **NEEDED.get(name, {}))
        assert text.index("dry_run") < text.index(" my yes") < text.index("verified")


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("start_over", {}, "message is required"),
        ("start_over", {"message": ""}, "message is required"),
        ("start_over", {"message": "x" * 5001}, "message must have at most 5000 characters"),
        ("start_over", {"message": "a\0b"}, "message has a character that cannot be kept"),
        ("watch_build", {"session_id": "s-1"}, "session_id must be a UUID"),
        ("watch_build", {"sesion": "x"}, "no such argument: sesion; known: session_id"),
        ("watch_build", {"x" * 10_000: "x"}, "known: session_id"),
        ("cancel_with_confirmation", {"reason": "x" * 501}, "at most 500 characters"),
        ("no_such_prompt", {}, "Unknown prompt: no_such_prompt; known: watch_build"),
        ("x" * 10_000, {}, "Unknown prompt: xxx"),
    ],
)
async def test_what_is_wrong_with_a_request_for_a_prompt_is_said(
    agent: Agent, name: str, arguments: dict[str, str], told: str
) -> None:
    assert told in await refused(agent.client, name, **arguments)
