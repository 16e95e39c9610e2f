"""The tools as `tools/list` sends them: what an agent is told before it calls anything.

A change of these files is a change of the product. BILT_UPDATE_SNAPSHOTS=1 writes them anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from bilt_mcp.server import create_server
from bilt_mcp.state import TRANSITIONS, Status

from .support.places import Place
from .support.places import place as place  # a fixture
from .support.rpc import HANDSHAKE, STATELESS, Server

pytestmark = pytest.mark.anyio

SNAPSHOTS = Path(__file__).parent / "toolsnaps"
UPDATE = "BILT_UPDATE_SNAPSHOTS"

MOST_CHARACTERS = 12_000
"""What the list may cost every conversation that has these tools."""

Json = dict[str, Any]
validator: Any = import_module("jsonschema").Draft202012Validator

HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
CONTRACT: dict[str, tuple[str, tuple[bool, bool, bool, bool]]] = {
    "bilt_get_session": ("Look at a session", (True, False, True, False)),
    "bilt_send_message": ("Start a workflow", (False, False, False, True)),
    "bilt_get_messages": ("Read messages and output", (True, False, True, False)),
    "bilt_cancel_workflow": ("Stop a workflow", (False, True, True, False)),
    "bilt_confirm_action": ("Have the user confirm a step", (False, True, False, True)),
    "bilt_cancel_action": ("Decline a step", (False, True, False, False)),
    "bilt_pause_workflow": ("Pause a workflow", (False, False, True, False)),
    "bilt_resume_workflow": ("Resume a workflow", (False, False, False, True)),
    "bilt_list_projects": ("List projects", (True, False, True, False)),
    "bilt_get_project": ("Look at a project", (True, False, True, False)),
    "bilt_create_project": ("Create a project", (False, False, False, False)),
}
ERROR_SCHEMA = {"required": ["error", "details"]}


@pytest.fixture(params=["legacy", "2026-07-28"])
async def listed(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[list[Json]]:
    """The tools in wire form, in each era of the protocol."""
    async with Client(create_server(place.config()), mode=request.param) as client:
        found = await client.list_tools()
        assert found.next_cursor is None
        yield [
            tool.model_dump(mode="json", by_alias=True, exclude_unset=True) for tool in found.tools
        ]


async def test_every_tool_is_listed_as_it_was_reviewed(listed: list[Json]) -> None:
    texts = {
        tool["name"]: json.dumps(tool, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for tool in listed
    }
    if os.environ.get(UPDATE):
        for old in SNAPSHOTS.glob("*.json"):
            old.unlink()
        for name, text in texts.items():
            (SNAPSHOTS / f"{name}.json").write_text(text, "utf-8")
    kept = {file.stem: file.read_text("utf-8") for file in SNAPSHOTS.glob("*.json")}
    changed = sorted(name for name in kept.keys() | texts if kept.get(name) != texts.get(name))
    if changed:
        pytest.fail(
            f"tools/list changed for {', '.join(changed)}. If that is meant, write tests/toolsnaps/ anew with "
            f"`{UPDATE}=1 make test ARGS=tests/test_tool_snapshots.py`, read `git diff tests/toolsnaps`, and commit it."
        )


async def test_names_titles_and_hints_are_those_of_the_contract(listed: list[Json]) -> None:
    found = {
        tool["name"]: (tool["title"], tuple(tool["annotations"][hint] for hint in HINTS))
        for tool in listed
    }
    assert found == CONTRACT
    assert list(found) == list(CONTRACT)


async def test_arguments_are_those_of_the_contract_and_no_others(listed: list[Json]) -> None:
    schemas = {tool["name"]: tool["inputSchema"] for tool in listed}
    for schema in schemas.values():
        validator.check_schema(schema)
        assert schema["type"] == "object"
    assert {
        name: (list(schema["properties"]), schema.get("required", []))
        for name, schema in schemas.items()
    } == {
        "bilt_get_session": (["session_id", "project_id", "wait_seconds", "after_revision"], []),
        "bilt_send_message": (
            ["session_id", "message", "wait_for_response", "idempotency_key"],
            ["session_id", "message"],
        ),
        "bilt_get_messages": (
            [
                "session_id",
                "limit",
                "offset",
                "after",
                "before",
                "variant",
                "workflow_id",
                "query",
                "max_chars",
            ],
            ["session_id"],
        ),
        "bilt_cancel_workflow": (["session_id", "reason", "dry_run"], ["session_id"]),
        "bilt_confirm_action": (["session_id", "action_id"], ["session_id", "action_id"]),
        "bilt_cancel_action": (["session_id", "action_id", "reason"], ["session_id", "action_id"]),
        "bilt_pause_workflow": (["session_id", "reason"], ["session_id"]),
        "bilt_resume_workflow": (["session_id"], ["session_id"]),
        "bilt_list_projects": ([], []),
        "bilt_get_project": (["project_id"], ["project_id"]),
        "bilt_create_project": (["name", "description", "visibility"], ["name"]),
    }


async def test_defaults_and_limits_are_those_of_the_contract(listed: list[Json]) -> None:
    told = {
        f"{tool['name'].removeprefix('bilt_')}.{name}": {
            key: value
            for key, value in field.items()
            if key not in {"description", "type", "format"}
        }
        for tool in listed
        for name, field in tool["inputSchema"]["properties"].items()
    }
    assert {name: field for name, field in told.items() if field} == {
        "get_session.wait_seconds": {"default": 0, "minimum": 0, "maximum": 45},
        "get_session.after_revision": {"minimum": 0},
        "send_message.message": {"minLength": 1, "maxLength": 5000},
        "send_message.wait_for_response": {"default": False},
        "send_message.idempotency_key": {"minLength": 1, "maxLength": 128},
        "get_messages.limit": {"default": 50, "minimum": 1, "maximum": 100},
        "get_messages.offset": {"default": 0, "minimum": 0},
        "get_messages.after": {"minimum": 0},
        "get_messages.before": {"minimum": 0},
        "get_messages.variant": {"enum": ["info", "error", "success", "log"]},
        "get_messages.query": {"maxLength": 500},
        "get_messages.max_chars": {"default": 20000, "minimum": 500, "maximum": 50000},
        "cancel_workflow.reason": {"maxLength": 500},
        "cancel_workflow.dry_run": {"default": False},
        "cancel_action.reason": {"maxLength": 500},
        "pause_workflow.reason": {"maxLength": 500},
        "create_project.name": {"maxLength": 255, "pattern": "^[A-Za-z0-9_-]+$"},
        "create_project.description": {"maxLength": 1000},
        "create_project.visibility": {"default": "PUBLIC", "enum": ["PUBLIC", "PRIVATE"]},
    }
    uuids = [
        f"{tool['name']}.{name}"
        for tool in listed
        for name, field in tool["inputSchema"]["properties"].items()
        if field.get("format") == "uuid"
    ]
    assert len(uuids) == 13


async def test_an_answer_is_a_success_or_the_documented_error(listed: list[Json]) -> None:
    for tool in listed:
        schema = tool["outputSchema"]
        validator.check_schema(schema)
        assert schema["type"] == "object"
        *successes, error = schema["anyOf"]
        assert error == ERROR_SCHEMA
        assert successes
        found = validator(schema)
        assert found.is_valid({"error": "Session not found", "details": {"message": "m"}})
        others: list[Any] = [{}, {"error": "x"}, {"details": {}}, []]
        for other in others:
            assert not found.is_valid(other), other
        for success in successes:
            assert "error" not in success["required"]


async def test_the_statuses_that_are_published_are_those_of_the_state_machine(
    listed: list[Json],
) -> None:
    reached = {source for source, _ in TRANSITIONS} | set(TRANSITIONS.values())
    assert reached == set(Status)
    every = {"idle", *(status.value for status in Status)}
    (session, *_) = listed
    assert set(session["outputSchema"]["anyOf"][0]["properties"]["status"]["enum"]) == every


async def test_descriptions_are_neither_empty_words_nor_essays(listed: list[Json]) -> None:
    for tool in listed:
        assert 50 < len(tool["description"]) < 600


async def test_what_a_linter_of_tool_definitions_counts_is_there(listed: list[Json]) -> None:
    """The rules of `tdqs lint` 0.1 (TDQS 1.2) on arguments: 4 of 5 are described, and they are flat and few.

    A tool that is much harder to call than another one loses to it, so nobody is asked for more than two.
    """
    for tool in listed:
        fields: Json = tool["inputSchema"]["properties"]
        described = [name for name, field in fields.items() if field.get("description")]
        assert len(described) >= 0.8 * len(fields), (tool["name"], set(fields) - set(described))
        assert len(tool["inputSchema"].get("required", [])) <= 2
        for name, field in fields.items():
            assert field["type"] in {"string", "integer", "number", "boolean"}, name


@pytest.mark.parametrize("era", [HANDSHAKE, STATELESS])
def test_the_whole_list_as_it_goes_over_standard_output_is_short(era: str, place: Place) -> None:
    with Server(place.arguments, place.environ, era=era) as server:
        tools: list[Json] = server.ask("tools/list")["result"]["tools"]
    line = server.lines[-1].decode()
    assert len(tools) == len(CONTRACT)
    if len(line) >= MOST_CHARACTERS:
        rows = "\n".join(_weighed(tool) for tool in tools)
        pytest.fail(f"tools/list has {len(line)} characters:\n{rows}", pytrace=False)


def _weighed(tool: Json) -> str:
    """How many characters of the line each part of a tool is."""
    parts = ("description", "inputSchema", "outputSchema", "annotations")
    weights = {part: _characters(tool[part]) for part in parts}
    told = ", ".join(f"{part} {weight}" for part, weight in weights.items())
    return f"{tool['name']:24} {_characters(tool):5}: {told}"


def _characters(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


async def test_each_description_names_the_tools_to_use_beside_it(listed: list[Json]) -> None:
    names = set(CONTRACT)
    mentioned = {
        tool["name"]: {name for name in names if name in json.dumps(tool)} - {tool["name"]}
        for tool in listed
    }
    assert mentioned["bilt_get_session"] >= {"bilt_get_messages"}
    assert mentioned["bilt_send_message"] == {
        "bilt_get_session",
        "bilt_get_messages",
        "bilt_cancel_workflow",
    }
    assert mentioned["bilt_get_messages"] >= {"bilt_get_session"}
    assert mentioned["bilt_cancel_workflow"] >= {"bilt_get_session"}
