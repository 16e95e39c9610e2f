"""The chat over HTTP (CONTRACT section 4): gates that a person answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import SqliteStore

from .store_contract import NOBODY_KNOWS
from .support.chat import (
    ASKS,
    CANCELLED,
    NOTHING,
    SKIPS,
    Person,
    gather,
    logged_in,
    person,
)
from .support.chat import alice as alice
from .support.chat import alice_logged_in as alice_logged_in
from .support.chat import place as place
from .support.chat import server as server
from .support.chat import store as store
from .support.http import serving
from .support.places import Place

pytestmark = pytest.mark.anyio

SEED = Path(__file__).parents[1] / "docs" / "seeds"


def deployed(place: Place) -> bool:
    return (place.project / "deployed").exists()


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
        asked = [(alice, thread) for thread in (idle, running, NOBODY_KNOWS, "thread_xyz789")]
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
    place.workflow(ASKS + "confirm_timeout = 600\n")
    answer = await alice.say()
    assert "it counts as no" in answer["response"]
    await alice.told("/chat/cancel", {"thread_id": answer["thread_id"]})
    place.workflow(ASKS + "confirm_timeout = 0.3\n")
    thread = await alice.queue()
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
