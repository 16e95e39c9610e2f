"""The chat over HTTP (CONTRACT section 4): messages, and gates that a person answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bilt_mcp.server import create_server
from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import SqliteStore
from bilt_mcp.state.driver import sqlite3

from .support.chat import ASKS, SKIPS, Person, gather, logged_in, person
from .support.http import serving
from .support.places import Place, open_place
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

SEED = Path(__file__).parents[1] / "docs" / "seeds"
NOWHERE = "7d3fcd2c-5b5f-4c5e-8a7b-0123456789ab"
CANCELLED = {"status": "cancelled", "response": "Action cancelled.", "cancelled": True}
NOTHING = {
    "error": "no_pending_action",
    "message": "No action of this thread waits for a confirmation: nothing was changed.",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("chat")) as found:
        yield found


@pytest.fixture(scope="module")
async def server(place: Place) -> AsyncIterator[Listening]:
    async with serving(place.config(), HttpSettings(login_rate=0)) as listening:
        yield listening


@pytest.fixture
async def alice(server: Listening, place: Place) -> AsyncIterator[Person]:
    place.workflow(ASKS)
    (place.project / "deployed").unlink(missing_ok=True)
    async with logged_in(server.url, place, "alice") as someone:
        yield someone


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
        {"user_message": "go", "conversation_history": [{"role": "user"}]},
        {"user_message": "go", "conversation_history": [{"role": "u", "content": "c"}] * 201},
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


@pytest.mark.parametrize("thread", [NOWHERE, "thread_xyz789", "x" * 200])
async def test_a_message_to_a_thread_that_is_not_there_is_refused(
    alice: Person, thread: str
) -> None:
    for path in ("/chat", "/chat/message"):
        answer = await alice.post(path, {"user_message": "go", "thread_id": thread})
        assert (answer.status_code, answer.json()["error"]) == (404, "thread_not_found")


async def test_a_project_that_cannot_run_says_why(alice: Person, place: Place) -> None:
    place.workflow("[[step]]\n")
    answer = await alice.post("/chat", {"user_message": "go"})
    assert (answer.status_code, answer.json()["error"]) == (409, "invalid_workflow_file")


async def test_a_conversation_may_be_sent_along(alice: Person) -> None:
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    assert (await alice.say(conversation_history=said))["requires_confirmation"] is True


# -- answering -----------------------------------------------------------------------------------


async def test_a_yes_runs_the_step_and_is_answered_with_its_results(
    alice: Person, place: Place
) -> None:
    thread = (await alice.say())["thread_id"]
    answer = await alice.told("/chat/confirm", {"thread_id": thread})
    assert answer == {
        "thread_id": thread,
        "status": "completed",
        "response": "Done: build, deploy succeeded.",
        "results": {
            "build": {"status": "completed", "exit_code": 0},
            "deploy": {"status": "completed", "exit_code": 0},
        },
    }
    assert deployed(place)


async def test_a_yes_before_the_next_question_is_answered_with_that(
    alice: Person, place: Place
) -> None:
    place.workflow(ASKS + '\n[[step]]\nname = "announce"\nrun = "true"\nconfirm = "Tell them?"\n')
    first = await alice.say()
    answer = await alice.told("/chat/confirm", {"thread_id": first["thread_id"]})
    assert answer["status"] == "completed"
    assert answer["requires_confirmation"] is True
    assert answer["confirmation_message"] == "Tell them?"
    # The first question's id is not the second one's: a late click confirms nothing.
    late = {"thread_id": first["thread_id"], "action_id": first["action_id"]}
    for path in ("/chat/confirm", "/chat/cancel"):
        assert (await alice.post(path, late)).json() == NOTHING
    now = {"thread_id": first["thread_id"], "action_id": answer["action_id"]}
    assert (await alice.told("/chat/cancel", now))["cancelled"] is True


async def test_a_no_is_answered_as_documented_and_nothing_is_deployed(
    alice: Person, place: Place
) -> None:
    thread = (await alice.say())["thread_id"]
    answer = await alice.post("/chat/cancel", {"thread_id": thread})
    assert (answer.status_code, answer.json()) == (200, {"thread_id": thread, **CANCELLED})
    assert list(answer.json()) == ["thread_id", "status", "response", "cancelled"]
    async with SqliteStore(place.location) as store:
        session = await store.session("local", thread)
        assert session.status == "cancelled"
        assert [entry.action for entry in await store.audit("local", thread)][-1] == "decline"
    assert not deployed(place)
    # The conversation can go on.
    assert (await alice.say(thread_id=thread))["requires_confirmation"] is True


async def test_a_no_to_a_step_that_may_be_left_out_goes_on_without_it(
    alice: Person, place: Place
) -> None:
    place.workflow(SKIPS)
    thread = (await alice.say())["thread_id"]
    assert await alice.told("/chat/cancel", {"thread_id": thread}) == {
        "thread_id": thread,
        **CANCELLED,
    }
    assert (await alice.follow(thread))[-1].data["response"] == (
        "Done: build, report succeeded. Left out: deploy."
    )
    assert not deployed(place)


async def test_the_audit_says_who_answered_and_where(alice: Person, place: Place) -> None:
    thread = (await alice.say())["thread_id"]
    await alice.told("/chat/confirm", {"thread_id": thread})
    async with SqliteStore(place.location) as store:
        start, confirm = await store.audit("local", thread)
    assert (start.action, confirm.action) == ("start", "confirm")
    assert confirm.caller.surface == "chat"
    assert "alice" in confirm.caller.principal


@pytest.mark.parametrize("path", ["/chat/cancel", "/chat/confirm"])
async def test_where_nothing_waits_the_answer_is_the_same_for_all(
    alice: Person, server: Listening, place: Place, path: str
) -> None:
    idle = await alice.queue()
    await alice.until(idle, "confirmation_required")
    await alice.told("/chat/cancel", {"thread_id": idle})
    place.workflow('[[step]]\nname = "build"\nrun = "sleep 60"\n')
    running = await alice.queue()
    await alice.until(running, "node_start")
    place.workflow(ASKS)
    mine = (await alice.say())["thread_id"]
    async with logged_in(server.url, place, f"eve {path}", "another") as eve:
        asked = [(alice, thread) for thread in (idle, running, NOWHERE, "thread_xyz789")]
        for someone, thread in [*asked, (eve, mine)]:
            answer = await someone.post(path, {"thread_id": thread})
            assert (answer.status_code, answer.json()) == (404, NOTHING)
    async with SqliteStore(place.location) as store:
        await store.cancel("local", running, None, (await store.audit("local", idle))[0].caller)


@pytest.mark.parametrize("body", [{}, {"thread_id": 5}, {"thread_id": ""}, [], None], ids=str)
async def test_an_answer_to_nothing_in_particular_is_refused(alice: Person, body: Any) -> None:
    for path in ("/chat/cancel", "/chat/confirm"):
        answer = await alice.post(path, body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_of_two_people_who_answer_at_once_exactly_one_does(
    alice: Person, server: Listening, place: Place
) -> None:
    async with logged_in(server.url, place, "bob") as bob:
        for _ in range(5):
            (place.project / "deployed").unlink(missing_ok=True)
            thread = {"thread_id": (await alice.say())["thread_id"]}
            answers = await gather(
                alice.post("/chat/confirm", thread),
                bob.post("/chat/cancel", thread),
                bob.post("/chat/confirm", thread),
                alice.post("/chat/cancel", thread),
            )
            won = [answer for answer in answers if answer.status_code == 200]
            lost = [answer for answer in answers if answer.status_code != 200]
            assert len(won) == 1, [answer.text for answer in answers]
            assert all(answer.json() == NOTHING for answer in lost)
            assert deployed(place) == (won[0].json()["status"] == "completed")


async def test_a_question_that_nobody_has_answered_in_time_is_a_no(
    alice: Person, place: Place
) -> None:
    place.workflow(ASKS + "confirm_timeout = 1\n")
    answer = await alice.say()
    assert "it counts as no" in answer["response"]
    thread = answer["thread_id"]
    assert (await alice.follow(thread))[-1].data["status"] == "cancelled"
    for path in ("/chat/confirm", "/chat/cancel"):
        assert (await alice.post(path, {"thread_id": thread})).json() == NOTHING
    assert not deployed(place)


async def test_who_goes_in_that_moment_has_answered_all_the_same(
    alice: Person, place: Place
) -> None:
    place.workflow(ASKS)
    thread = (await alice.say())["thread_id"]
    with anyio.move_on_after(0.002):
        await alice.post("/chat/confirm", {"thread_id": thread})
    answer = await alice.post("/chat/confirm", {"thread_id": thread})
    assert answer.status_code in (200, 404)
    assert (await alice.follow(thread))[-1].data["status"] == "completed"


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


async def test_a_read_only_key_may_look_and_not_answer(
    alice: Person, server: Listening, place: Place
) -> None:
    thread = (await alice.say())["thread_id"]
    async with logged_in(server.url, place, "reader", read_only=True) as reader:
        for path, body in (
            ("/chat", {"user_message": "go"}),
            ("/chat/message", {"user_message": "go"}),
            ("/chat/confirm", {"thread_id": thread}),
            ("/chat/cancel", {"thread_id": thread}),
        ):
            answer = await reader.post(path, body)
            assert (answer.status_code, answer.json()["error"]) == (403, "read_only_key")
        assert (await reader.until(thread, "confirmation_required"))[-1].data["open"]
    assert (await alice.post("/chat/cancel", {"thread_id": thread})).status_code == 200


async def test_with_no_auth_nobody_logs_in(place: Place) -> None:
    place.workflow(ASKS)
    async with (
        serving(place.config(), HttpSettings(no_auth=True)) as listening,
        person(listening.url) as anybody,
    ):
        thread = (await anybody.say())["thread_id"]
        assert (await anybody.told("/chat/cancel", {"thread_id": thread}))["cancelled"] is True
        who = (await anybody.http.get("/auth/session")).json()
        assert (who["account"], who["expires_at"]) == ("local", None)


# -- trouble -------------------------------------------------------------------------------------


async def test_the_page_s_curl_cancels_the_action(alice: Person, server: Listening) -> None:
    page = (SEED / "agentic-pal-chat-cancel.md").read_text("utf-8")
    example = page[page.index('curl -X POST "https://api.example.com/chat/cancel"') :]
    example = example[: example.index("}'") + 2]
    thread = (await alice.say())["thread_id"]
    command = (
        example.replace("https://api.example.com", server.url)
        .replace("your_session_id", alice.http.cookies["session_id"])
        .replace("thread_xyz789", thread)
    )
    assert thread in command
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            ["sh", "-c", f"{command} -sS"], capture_output=True, text=True, timeout=30, check=True
        )
    )
    assert json.loads(done.stdout) == {"thread_id": thread, **CANCELLED}


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
    with closing(sqlite3.connect(place.location.database)) as database:
        database.execute(
            "CREATE TRIGGER broken BEFORE UPDATE ON session BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        database.execute(
            "CREATE TRIGGER broken_too BEFORE INSERT ON session BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        database.commit()
        try:
            answer = await alice.post(path, asked)
        finally:
            database.execute("DROP TRIGGER broken")
            database.execute("DROP TRIGGER broken_too")
            database.commit()
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

            before = place.count("workflow")
            tasks.start_soon(say)
            await wait_until(lambda: place.count("workflow") > before, "it has begun")
            await anyio.sleep(0.2)
        assert "The server is stopping; the workflow goes on." in answers[0]["response"]
        thread = answers[0]["thread_id"]
        assert (await store.session("local", thread)).status in ("pending", "running")
        (place.project / "go").touch()
        await ended(store, thread)
    os.remove(place.project / "go")
