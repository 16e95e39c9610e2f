"""What holds for all tools: arguments, ids, both eras, and what happens when something breaks."""

from __future__ import annotations

import json
import logging

import pytest

from bilt_mcp.state import SqliteStore
from bilt_mcp.tools import build_tools

from .support.agents import (
    NO_SESSION,
    UNKNOWN,
    UUID_TOLD,
    Agent,
    Json,
    agent_at,
    invalid,
)
from .support.agents import agent as agent  # a fixture, like the next three
from .support.agents import hand as hand
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio


# -- arguments -------------------------------------------------------------------------------------

CALLS: dict[str, Json] = {
    "bilt_get_session": {},
    "bilt_send_message": {"message": "build"},
    "bilt_get_messages": {},
    "bilt_cancel_workflow": {},
    "bilt_confirm_action": {"action_id": UNKNOWN},
    "bilt_cancel_action": {"action_id": UNKNOWN},
    "bilt_pause_workflow": {},
    "bilt_resume_workflow": {},
}
"""Every tool about a session, and what it must be given beside the session's id."""


@pytest.mark.parametrize("tool", CALLS)
async def test_a_malformed_session_id_is_bad_input(agent: Agent, tool: str) -> None:
    cut = ["", "x", "s-1", UNKNOWN[:-1], UNKNOWN + "0", UNKNOWN.replace("-", "")]
    for malformed in [
        *cut,
        UNKNOWN + "\n",
        " " + UNKNOWN,
        f"{{{UNKNOWN}}}",
        f"\u0660{UNKNOWN[1:]}",
    ]:
        found = await agent.call(tool, **CALLS[tool], session_id=malformed)
        assert found == invalid(("session_id", UUID_TOLD)), malformed


@pytest.mark.parametrize("tool", CALLS)
async def test_an_unknown_and_a_foreign_session_get_the_same_answer(
    place: Place, agent: Agent, tool: str
) -> None:
    async with agent_at(place, "somebody else") as other:
        foreign = await other.session_id()
    unknown = await agent.text(tool, **CALLS[tool], session_id=UNKNOWN)
    assert json.loads(unknown) == NO_SESSION
    assert await agent.text(tool, **CALLS[tool], session_id=foreign) == unknown
    assert place.count("workflow") == 0


async def test_an_id_may_be_written_in_capitals(agent: Agent) -> None:
    session_id = await agent.session_id()
    found = await agent.call("bilt_send_message", session_id=session_id.upper(), message="build")
    assert found["session_id"] == session_id


@pytest.mark.parametrize("tool", CALLS)
async def test_null_counts_as_omitted(agent: Agent, tool: str) -> None:
    listed = {found.name: found for found in (await agent.client.list_tools()).tools}
    schema = listed[tool].input_schema
    optional = dict.fromkeys(set(schema["properties"]) - set(schema.get("required", ())))
    given = {**CALLS[tool], "session_id": await agent.session_id()}
    without = await agent.call(tool, **given)
    if tool == "bilt_send_message":
        assert without["status"] == "pending"
        await agent.call("bilt_cancel_workflow", session_id=given["session_id"])
    again = await agent.call(tool, **{**optional, **given})
    assert {**again, "workflow_id": 0} == {
        **without,
        "workflow_id": 0,
    } or "workflow_id" not in again


@pytest.mark.parametrize("tool", list(CALLS)[1:])
@pytest.mark.parametrize("given", [{}, {"session_id": None}])
async def test_a_required_argument_that_is_missing_or_null_is_named(
    agent: Agent, tool: str, given: Json
) -> None:
    assert await agent.call(tool, **CALLS[tool], **given) == invalid(("session_id", "is required"))


async def test_every_problem_is_told_at_once(agent: Agent) -> None:
    assert await agent.call("bilt_send_message") == invalid(
        ("session_id", "is required"), ("message", "is required")
    )


async def test_an_unknown_argument_gets_a_suggestion(agent: Agent) -> None:
    assert await agent.call("bilt_get_session", sesion_id=UNKNOWN) == invalid(
        ("sesion_id", 'no such argument; did you mean "session_id"?')
    )
    assert await agent.call("bilt_cancel_workflow", session_id=UNKNOWN, zzz=1) == invalid(
        ("zzz", "no such argument; known: session_id, reason, dry_run")
    )
    assert await agent.call("bilt_list_projects", zzz=1) == invalid(
        ("zzz", "no such argument; known: none")
    )


async def test_many_and_long_unknown_arguments_get_a_short_answer(agent: Agent) -> None:
    found = await agent.text("bilt_get_session", **{"k" * 5000 + str(n): 1 for n in range(500)})
    assert len(found) < 5000


async def test_an_unknown_tool_gets_a_suggestion(agent: Agent) -> None:
    assert await agent.call("bilt_cancel") == invalid(
        ("name", 'no such tool; did you mean "bilt_cancel_action" or "bilt_cancel_workflow"?')
    )
    known = ", ".join(build_tools())
    assert await agent.call("rm") == invalid(("name", f"no such tool; known: {known}"))


AT_LEAST, AT_MOST = (
    "input should be greater than or equal to",
    "input should be less than or equal to",
)
WRONG: tuple[tuple[str, str, object, str], ...] = (
    ("bilt_get_session", "session_id", 5, "input should be a valid string"),
    ("bilt_get_session", "project_id", "p", UUID_TOLD),
    ("bilt_get_session", "wait_seconds", -0.1, f"{AT_LEAST} 0"),
    ("bilt_get_session", "wait_seconds", 45.1, f"{AT_MOST} 45"),
    ("bilt_get_session", "wait_seconds", "soon", "input should be a valid number"),
    ("bilt_get_session", "after_revision", -1, f"{AT_LEAST} 0"),
    ("bilt_get_session", "after_revision", 1.5, "input should be a valid integer"),
    ("bilt_send_message", "message", "", "must not be empty"),
    ("bilt_send_message", "message", "x" * 5001, "must have at most 5000 characters"),
    ("bilt_send_message", "message", ["x"], "input should be a valid string"),
    ("bilt_send_message", "message", {"x": 1}, "input should be a valid string"),
    ("bilt_send_message", "message", "a\0b", "contains a NUL character"),
    ("bilt_send_message", "message", "\ud800", "contains a lone surrogate"),
    ("bilt_send_message", "message", "a\udfffb", "contains a lone surrogate"),
    ("bilt_send_message", "wait_for_response", "maybe", "input should be a valid boolean"),
    ("bilt_send_message", "idempotency_key", "", "must not be empty"),
    ("bilt_send_message", "idempotency_key", "k" * 129, "must have at most 128 characters"),
    ("bilt_send_message", "idempotency_key", "\0", "contains a NUL character"),
    ("bilt_get_messages", "limit", 0, f"{AT_LEAST} 1"),
    ("bilt_get_messages", "limit", 101, f"{AT_MOST} 100"),
    ("bilt_get_messages", "limit", 10**400, f"{AT_MOST} 100"),
    ("bilt_get_messages", "offset", -1, f"{AT_LEAST} 0"),
    ("bilt_get_messages", "offset", 2**53 + 1, f"{AT_MOST} 900719"),
    ("bilt_get_messages", "after", -1, f"{AT_LEAST} 0"),
    ("bilt_get_messages", "after", 2**63, f"{AT_MOST} 900719"),
    ("bilt_get_messages", "before", -1, f"{AT_LEAST} 0"),
    ("bilt_get_messages", "before", 2**63, f"{AT_MOST} 900719"),
    ("bilt_get_messages", "variant", "warning", "input should be 'info', 'error', 'success'"),
    ("bilt_get_messages", "workflow_id", "w", UUID_TOLD),
    ("bilt_get_messages", "query", "\0", "contains a NUL character"),
    ("bilt_get_messages", "max_chars", 499, f"{AT_LEAST} 500"),
    ("bilt_get_messages", "max_chars", 50001, f"{AT_MOST} 50000"),
    ("bilt_cancel_workflow", "reason", "x" * 501, "must have at most 500 characters"),
    ("bilt_cancel_workflow", "reason", "\ud800", "contains a lone surrogate"),
    ("bilt_cancel_workflow", "dry_run", 2, "input should be a valid boolean"),
    ("bilt_confirm_action", "action_id", "a", UUID_TOLD),
    ("bilt_confirm_action", "action_id", {"confirm": True}, "input should be a valid string"),
    ("bilt_cancel_action", "action_id", UNKNOWN[:-1], UUID_TOLD),
    ("bilt_cancel_action", "reason", "x" * 501, "must have at most 500 characters"),
    ("bilt_pause_workflow", "reason", "x" * 501, "must have at most 500 characters"),
    ("bilt_pause_workflow", "reason", "\0", "contains a NUL character"),
)


@pytest.mark.parametrize("tool", CALLS)
async def test_a_wrong_value_is_refused_and_named(agent: Agent, place: Place, tool: str) -> None:
    session_id = await agent.session_id()
    for _, argument, value, told in (row for row in WRONG if row[0] == tool):
        given = {"session_id": session_id, **CALLS[tool], argument: value}
        found = await agent.call(tool, **given)
        assert found["error"] == "Invalid arguments", argument
        (problem,) = found["details"]["fields"]
        assert problem["field"] == argument
        assert problem["message"].startswith(told)
        assert problem["message"] in found["details"]["message"]
    assert (place.count("workflow"), place.kept()) == (0, ([], []))


async def test_a_message_is_kept_as_it_was_said(agent: Agent) -> None:
    long = ["x" * 5000, "\U0001f680" * 5000, "\u202e" * 5000]
    for message in ["x", *long, '{"x": 1}', "[1]", "5", "null", "true", " \n"]:
        session_id, _ = await agent.start(message)
        found = await agent.call("bilt_get_messages", session_id=session_id, max_chars=50000)
        said = found["messages"][1]
        assert (said["side"], said["variant"], said["content"]) == ("user", "info", message)
        await agent.call("bilt_cancel_workflow", session_id=session_id)


# -- when something breaks -------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
async def test_a_crash_is_an_answer_with_an_id_that_the_log_knows(
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    session_id = await agent.session_id()

    async def crash(*_: object, **__: object) -> None:
        raise error("the secret cause")

    for tool, given in CALLS.items():
        caplog.clear()
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            for verb in ("session", "messages", "cancel", "decline", "request_pause", "resume"):
                patch.setattr(SqliteStore, verb, crash)
            found = await agent.call(tool, **given, session_id=session_id)
        error_id = found["details"].pop("error_id")
        assert found == {
            "error": "Internal error",
            "details": {
                "message": "bilt-mcp failed; the workflow, if one runs, goes on. Try once more; if it fails again, "
                "tell the user the error_id, under which the server's log has the cause."
            },
        }
        assert error_id in caplog.text
        assert "the secret cause" in caplog.text
        assert (await agent.call("bilt_get_session"))["status"] == "idle"


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_store_that_cannot_be_opened_is_an_answer_until_it_can(
    place: Place, mode: str
) -> None:
    place.store.write_text("this is no store, but a file of somebody's")
    async with agent_at(place, mode=mode) as agent:
        found = await agent.call("bilt_get_session")
        assert found["error"] == "Internal error"
        assert set(found["details"]) == {"error_id", "message"}
        assert found["details"]["message"].startswith(f"The store {place.store} is damaged or not")
        place.store.unlink()
        assert (await agent.call("bilt_get_session"))["status"] == "idle"


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_both_eras_get_the_same_answers(place: Place, mode: str) -> None:
    async with agent_at(place, mode=mode) as agent:
        session_id, workflow_id = await agent.start()
        found = await agent.call("bilt_cancel_workflow", session_id=session_id)
        assert (found["status"], found["workflow_id"]) == ("cancelled", workflow_id)
        assert await agent.call("bilt_get_session", session_id=UNKNOWN) == NO_SESSION
