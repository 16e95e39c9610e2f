"""The chat over HTTP (CONTRACT section 4): what it is told, and what it tells."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

import anyio
import pytest

from bilt_mcp.server import create_server
from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import SqliteStore
from bilt_mcp.state.driver import sqlite3

from .store_contract import NOBODY_KNOWS
from .support.chat import (
    Person,
    person,
)
from .support.chat import alice as alice
from .support.chat import alice_logged_in as alice_logged_in
from .support.chat import place as place
from .support.chat import server as server
from .support.chat import store as store
from .support.http import serving
from .support.places import Place
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio


def deployed(place: Place) -> bool:
    return (place.project / "deployed").exists()


async def ended(store: SqliteStore, thread: str) -> None:
    with anyio.fail_after(20):
        with store.watch("local", thread) as watch:
            while (found := await store.session("local", thread)).status != "completed":
                await watch.passed(found.revision, 20)


# -- asking ------------------------------------------------------------------------------------


async def test_a_message_is_answered_at_the_gate_with_its_question(
    alice: Person, place: Place
) -> None:
    answer = await alice.say("deploy please", conversation_history=[])
    assert set(answer) == {
        "response",
        "thread_id",
        "actions",
        "requires_confirmation",
        "confirmation_message",
        "action_id",
    }
    assert answer["requires_confirmation"] is True
    assert answer["confirmation_message"] == "Deploy it?"
    assert answer["actions"] == [
        {"name": "build", "status": "completed", "requires_confirmation": False},
        {"name": "deploy", "status": "waiting", "requires_confirmation": True},
    ]
    assert "deploy (2 of 2) waits for your answer" in answer["response"]
    assert not deployed(place)


async def test_a_message_whose_workflow_asks_nothing_is_answered_when_it_is_done(
    alice: Person, place: Place
) -> None:
    place.workflow('[[step]]\nname = "build"\nrun = "echo secret words"\n')
    answer = await alice.say()
    assert answer["response"] == "Done: build succeeded."
    assert answer["requires_confirmation"] is False
    assert "confirmation_message" not in answer
    assert "secret words" not in json.dumps(answer)


async def test_a_workflow_that_fails_is_told_in_our_words(alice: Person, place: Place) -> None:
    place.workflow(
        '[[step]]\nname = "a"\nrun = "echo loud; exit 3"\n[[step]]\nname = "b"\nrun = "x"\n'
    )
    answer = await alice.say()
    assert answer["response"] == "Failed. Step a failed with exit code 3. Nothing was deployed."
    assert [step["status"] for step in answer["actions"]] == ["failed", "not_run"]
    assert "loud" not in json.dumps(answer)


async def test_a_message_without_a_thread_begins_one_and_with_it_goes_on(
    alice: Person, place: Place
) -> None:
    place.workflow('[[step]]\nname = "build"\nrun = "true"\n')
    first, second = await alice.say(), await alice.say()
    assert first["thread_id"] != second["thread_id"]
    third = await alice.say(thread_id=first["thread_id"])
    assert third["thread_id"] == first["thread_id"]


async def test_a_thread_that_is_busy_says_what_to_do(alice: Person) -> None:
    thread = (await alice.say())["thread_id"]
    answer = await alice.post("/chat", {"user_message": "again", "thread_id": thread})
    assert answer.status_code == 409
    assert answer.json()["error"] == "already_active"
    assert "/chat/confirm" in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_message": ""},
        {"user_message": "x" * 5001},
        {"user_message": 5},
        {"user_message": "a\0b"},
        {"user_message": "go", "thread": "misspelled"},
        {"user_message": "go", "conversation_history": "hello"},
        {"user_message": "go", "conversation_history": ["hello"]},
        [],
        None,
        "go",
    ],
    ids=str,
)
async def test_a_message_that_is_none_is_refused_and_starts_nothing(
    alice: Person, place: Place, body: Any
) -> None:
    before = place.count("workflow")
    for path in ("/chat", "/chat/message"):
        answer = await alice.post(path, body)
        assert answer.status_code == 400
        assert answer.json()["error"] == "invalid_request"
        assert set(answer.json()) == {"error", "message"}
    assert place.count("workflow") == before


@pytest.mark.parametrize("thread", [NOBODY_KNOWS, "thread_xyz789", "x" * 200])
async def test_a_message_to_a_thread_that_is_not_there_is_refused(
    alice: Person, thread: str
) -> None:
    for path in ("/chat", "/chat/message"):
        answer = await alice.post(path, {"user_message": "go", "thread_id": thread})
        assert (answer.status_code, answer.json()["error"]) == (404, "thread_not_found")


@pytest.mark.parametrize(
    ("workflow", "error", "why"),
    [
        ("[[step]]\n", "invalid_workflow_file", "run"),
        ('[[step]]\nname = "a"\nrun = "true"\nwhen = "b.a"\n', "no_workflow_configured", '"b.a"'),
        (None, "no_workflow_configured", "no bilt.toml"),
    ],
    ids=["wrong", "none applies", "not there"],
)
async def test_a_project_that_cannot_run_says_why_and_not_where_it_is(
    alice: Person, place: Place, workflow: str | None, error: str, why: str
) -> None:
    place.workflow(workflow or "")
    if workflow is None:
        (place.project / "bilt.toml").unlink()
    answer = await alice.post("/chat", {"user_message": "go"})
    told = answer.json()
    assert (answer.status_code, told["error"]) == (409, error)
    assert why in told["message"]
    assert str(place.project) not in told["message"]
    assert "bilt_send_message" not in told["message"]


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}],
        [{"type": "human", "content": [{"text": "hello"}], "id": 7, "name": None}, {}],
        [{"role": "user", "content": "hello"}] * 1000,
    ],
    ids=["null", "empty", "turns", "of another program", "long"],
)
async def test_a_conversation_may_be_sent_along_as_its_program_keeps_it(
    alice: Person, said: Any
) -> None:
    assert (await alice.say(conversation_history=said))["requires_confirmation"] is True


# -- answering -----------------------------------------------------------------------------------


async def test_nothing_waits_on_for_a_caller_who_has_gone(
    alice: Person, server: Listening, place: Place
) -> None:
    place.workflow('[[step]]\nname = "build"\nrun = "until [ -e go ]; do sleep 0.05; done"\n')
    (place.project / "go").unlink(missing_ok=True)
    thread = await alice.queue()
    await alice.until(thread, "node_start")
    await wait_until(lambda: len(server.site.requests) == 0, "the stream is gone")
    (place.project / "go").touch()
    await alice.follow(thread)
    (place.project / "go").unlink()
    before = place.count("workflow")
    with anyio.move_on_after(20) as patience:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alice.say, "go on")
            await wait_until(lambda: place.count("workflow") > before, "it has begun")
            assert len(server.site.requests) == 1
            tasks.cancel_scope.cancel()
    assert not patience.cancelled_caught
    await wait_until(lambda: len(server.site.requests) == 0, "its request is gone")
    (place.project / "go").touch()


# -- other surfaces ------------------------------------------------------------------------------


async def test_what_the_chat_started_an_agent_sees_and_stops(
    alice: Person, server: Listening, place: Place
) -> None:
    from mcp import Client

    place.workflow('[[step]]\nname = "build"\nrun = "sleep 60"\n')
    thread = await alice.queue()
    await alice.until(thread, "node_start")
    async with Client(create_server(place.config())) as agent:
        found = await agent.call_tool("bilt_get_session", {"session_id": thread})
        assert found.structured_content is not None
        assert found.structured_content["status"] == "running"
        stopped = await agent.call_tool("bilt_cancel_workflow", {"session_id": thread})
        assert stopped.structured_content is not None
        assert stopped.structured_content["stopped"]["verified"]
    assert (await alice.follow(thread))[-1].data["status"] == "cancelled"


# -- trouble -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "error", "told"),
    [
        ("/chat/cancel", "thread_id", "cancellation_error", "Failed to cancel action: "),
        ("/chat/confirm", "thread_id", "confirmation_error", "Failed to confirm action: "),
        ("/chat", "user_message", "chat_error", "Failed to process message: "),
        ("/chat/message", "user_message", "chat_error", "Failed to process message: "),
    ],
)
async def test_a_store_that_fails_is_the_documented_error_and_says_nothing_of_us(
    alice: Person, place: Place, path: str, body: str, error: str, told: str
) -> None:
    thread = (await alice.say())["thread_id"]
    asked = {body: thread if body == "thread_id" else "go"}
    with closing(sqlite3.connect(place.location.database, isolation_level=None)) as database:
        database.execute("ALTER TABLE audit RENAME TO gone")
        try:
            answer = await alice.post(path, asked)
        finally:
            database.execute("ALTER TABLE gone RENAME TO audit")
    assert answer.status_code == 500
    assert set(answer.json()) == {"error", "message"}
    assert answer.json()["error"] == error
    assert answer.json()["message"].startswith(told)
    assert str(place.store) not in answer.text
    # It was a failure, not a half-done answer.
    if body == "thread_id":
        assert (await alice.post("/chat/cancel", {"thread_id": thread})).status_code == 200


async def test_a_server_that_stops_lets_go_of_who_waits_and_the_workflow_goes_on(
    place: Place,
) -> None:
    place.workflow('[[step]]\nname = "build"\nrun = "until [ -e go ]; do sleep 0.05; done"\n')
    async with SqliteStore(place.location) as store, anyio.create_task_group() as tasks:
        async with serving(place.config(), HttpSettings(no_auth=True)) as listening:
            answers: list[Any] = []

            async def say() -> None:
                async with person(listening.url) as anybody:
                    answers.append(await anybody.say())

            before = place.count("step_run")
            tasks.start_soon(say)
            await wait_until(lambda: place.count("step_run") > before, "its step has begun")
        assert "The server is stopping; the workflow goes on." in answers[0]["response"]
        thread = answers[0]["thread_id"]
        assert (await store.session("local", thread)).status in ("pending", "running")
        (place.project / "go").touch()
        await ended(store, thread)
    os.remove(place.project / "go")
