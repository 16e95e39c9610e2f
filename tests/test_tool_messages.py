"""`bilt_get_messages`: pages, filters, and an answer that is never longer than it may be."""

from __future__ import annotations

from typing import Any

import pytest

from bilt_mcp.state import Claim
from bilt_mcp.tools.results import MessagesResult

from .support.agents import UNKNOWN, Agent, Hand, agent_at, invalid
from .support.agents import agent as agent  # a fixture, like the next three
from .support.agents import hand as hand
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place


@pytest.fixture
async def talk(agent: Agent, hand: Hand) -> tuple[str, Claim]:
    """A session with a workflow that has said twenty lines, 3 to 22 by their ids."""
    session_id, _ = await agent.start("build")
    claim = await hand.claim()
    await hand.say(claim, *(f"line {n}" for n in range(1, 21)))
    return session_id, claim


def ids(found: dict[str, Any]) -> list[int]:
    return [message["id"] for message in found["messages"]]


@pytest.mark.anyio
async def test_a_message_has_the_documented_fields(agent: Agent, talk: tuple[str, Claim]) -> None:
    session_id, claim = talk
    found = await agent.call("bilt_get_messages", session_id=session_id)
    newest = found["messages"][0]
    assert newest == {
        "id": 22,
        "side": "ai",
        "variant": "log",
        "content": "line 20",
        "workflow_id": claim.workflow_id,
        "step": "build",
        "created_at": newest["created_at"],
    }
    assert set(found) == {"messages", "total", "has_more", "next_after"}
    asked = found["messages"][-1]
    assert (asked["side"], asked["content"], asked["step"]) == ("user", "build", None)


@pytest.mark.anyio
async def test_pages_go_backwards_from_the_newest_or_forwards_from_a_message(
    agent: Agent, hand: Hand, talk: tuple[str, Claim]
) -> None:
    session_id, claim = talk

    async def read(**given: Any) -> tuple[list[int], int, bool, int]:
        found = await agent.call("bilt_get_messages", session_id=session_id, **given)
        return ids(found), found["total"], found["has_more"], found["next_after"]

    assert await read() == (list(range(22, 0, -1)), 22, False, 22)
    assert await read(limit=3) == ([22, 21, 20], 22, True, 22)
    assert await read(limit=3, offset=20) == ([2, 1], 22, False, 22)
    assert await read(offset=22) == ([], 22, False, 22)
    assert await read(offset=2**53) == ([], 22, False, 22)
    assert await read(after=0, limit=2) == ([1, 2], 22, True, 2)
    assert await read(after=20) == ([21, 22], 22, False, 22)
    assert await read(after=22) == ([], 22, False, 22)
    assert await read(after=2**53) == ([], 22, False, 2**53)
    await hand.say(claim, "one more")
    assert await read(after=22) == ([23], 23, False, 23)


@pytest.mark.anyio
async def test_without_a_limit_it_is_fifty(
    agent: Agent, hand: Hand, talk: tuple[str, Claim]
) -> None:
    session_id, claim = talk
    await hand.say(claim, *("x" * 40))
    found = await agent.call("bilt_get_messages", session_id=session_id)
    assert (len(found["messages"]), found["has_more"], found["total"]) == (50, True, 62)
    found = await agent.call("bilt_get_messages", session_id=session_id, limit=100)
    assert (len(found["messages"]), found["has_more"]) == (62, False)


@pytest.mark.anyio
async def test_after_and_offset_exclude_each_other(agent: Agent, talk: tuple[str, Claim]) -> None:
    session_id, _ = talk
    told = "cannot be used together with after"
    both = await agent.call("bilt_get_messages", session_id=session_id, after=0, offset=1)
    assert both == invalid(("offset", told))
    none = await agent.call("bilt_get_messages", session_id=session_id, after=21, offset=0)
    assert ids(none) == [22]


@pytest.mark.anyio
async def test_pages_go_back_from_a_message_too(agent: Agent, talk: tuple[str, Claim]) -> None:
    session_id, _ = talk

    async def read(**given: Any) -> tuple[list[int], bool, int | None]:
        found = await agent.call("bilt_get_messages", session_id=session_id, **given)
        assert (found["total"], found["next_after"]) == (22, 22)
        return ids(found), found["has_more"], found.get("next_before")

    assert await read(limit=3) == ([22, 21, 20], True, 20)
    assert await read(limit=3, before=20) == ([19, 18, 17], True, 17)
    assert await read(limit=3, before=4) == ([3, 2, 1], False, None)
    assert await read(before=1) == ([], False, None)
    assert await read(before=0) == ([], False, None)
    assert await read(before=2**53) == (list(range(22, 0, -1)), False, None)
    for other in ("after", "offset"):
        call = {"session_id": session_id, "before": 5, other: 1}
        told = "cannot be used together with before"
        assert await agent.call("bilt_get_messages", **call) == invalid((other, told))


@pytest.mark.anyio
async def test_a_text_that_one_look_does_not_find_is_found_by_going_on(
    agent: Agent, talk: tuple[str, Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id, _ = talk
    monkeypatch.setattr("bilt_mcp.state.sqlite_pages.LOOK", 8)
    ask = {"session_id": session_id, "query": "line 2"}  # messages 4 and 22
    first = await agent.call("bilt_get_messages", **ask)
    assert (ids(first), first["total"], first["total_at_least"]) == ([22], 1, True)
    assert (first["has_more"], first["next_before"], first["next_after"]) == (True, 15, 22)
    second = await agent.call("bilt_get_messages", **ask, before=15)
    assert (ids(second), second["has_more"], second["next_before"]) == ([], True, 7)
    third = await agent.call("bilt_get_messages", **ask, before=7)
    assert (ids(third), third["has_more"], "next_before" in third) == ([4], False, False)
    read, after = list[int](), 0
    while True:
        found = await agent.call("bilt_get_messages", **ask, after=after)
        read += ids(found)
        assert found["next_after"] > after
        after = found["next_after"]
        if not found["has_more"]:
            break
    assert (read, after) == ([4, 22], 22)
    few = await agent.call("bilt_get_messages", **ask, variant="info")
    assert (few["total"], few["has_more"], "total_at_least" in few) == (0, False, False)


@pytest.mark.anyio
async def test_who_follows_with_a_filter_looks_at_nothing_twice(
    agent: Agent, hand: Hand, talk: tuple[str, Claim]
) -> None:
    session_id, claim = talk
    ask = {"session_id": session_id, "variant": "error"}
    found = await agent.call("bilt_get_messages", **ask, after=0)
    assert (ids(found), found["next_after"]) == ([], 22)
    await hand.say(claim, "broken", variant="error")
    await hand.say(claim, "and on")
    found = await agent.call("bilt_get_messages", **ask, after=22)
    assert (ids(found), found["next_after"]) == ([23], 24)


@pytest.mark.anyio
async def test_filters_narrow_the_messages_and_the_total(
    agent: Agent, hand: Hand, talk: tuple[str, Claim]
) -> None:
    session_id, claim = talk
    await hand.say(claim, "ERROR: Straße is 100% _wrong_", variant="error")
    await hand.complete(claim)
    _, second = await agent.start("again")

    async def found(**given: Any) -> tuple[list[int], int]:
        page = await agent.call("bilt_get_messages", session_id=session_id, **given)
        return ids(page), page["total"]

    assert await found(variant="error") == ([23], 1)
    assert await found(variant="success") == ([24], 1)
    assert await found(variant="log", limit=2) == ([22, 21], 20)
    assert await found(workflow_id=second) == ([26, 25], 2)
    assert await found(workflow_id=claim.workflow_id.upper(), variant="info") == ([2, 1], 2)
    assert await found(query="LINE 1", after=0, limit=2) == ([3, 12], 11)
    for query in ("strasse", "STRASSE", "100%", "_wrong_", "error:"):
        assert await found(query=query) == ([23], 1), query
    for query in ("100_", "%wrong%", "line%"):
        assert await found(query=query) == ([], 0), query
    assert await found(query="") == await found()


@pytest.mark.anyio
async def test_an_unknown_workflow_and_one_of_another_session_get_the_same_answer(
    agent: Agent, place: Place, talk: tuple[str, Claim]
) -> None:
    session_id, claim = talk
    unknown = await agent.text("bilt_get_messages", session_id=session_id, workflow_id=UNKNOWN)
    assert unknown == (
        '{"error":"Workflow not found","details":{"message":"No workflow with this id in this session. '
        "bilt_get_session names the newest; leave workflow_id out to read the messages of all."
        '"}}'
    )
    async with agent_at(place, "somebody else") as other:
        theirs = await other.session_id()
        call = {"session_id": theirs, "workflow_id": claim.workflow_id}
        assert await other.text("bilt_get_messages", **call) == unknown


@pytest.mark.anyio
async def test_the_same_question_gets_the_same_bytes(agent: Agent, talk: tuple[str, Claim]) -> None:
    session_id, _ = talk
    for asked in ({}, {"after": 3, "limit": 4}, {"max_chars": 500}, {"query": "line"}):
        text = await agent.text("bilt_get_messages", session_id=session_id, **asked)
        assert await agent.text("bilt_get_messages", session_id=session_id, **asked) == text


@pytest.mark.anyio
async def test_no_answer_is_longer_than_asked_for_and_the_cursor_reads_on(
    agent: Agent, hand: Hand, talk: tuple[str, Claim]
) -> None:
    session_id, claim = talk
    await hand.say(claim, *('"\\' * 2000, "\U0001f680" * 4000, "\x01" * 4000, "\n" * 4000) * 3)
    for max_chars in (500, 5000, 50000):
        read, after = list[int](), 0
        while True:
            call = {"session_id": session_id, "after": after, "max_chars": max_chars}
            text = await agent.text("bilt_get_messages", **call)
            assert len(text) <= max_chars
            found = MessagesResult.model_validate_json(text)
            read += [message.id for message in found.messages]
            after = found.next_after
            if not found.has_more:
                break
        assert read == list(range(1, 35))
    default = await agent.text("bilt_get_messages", session_id=session_id)
    told = await agent.text("bilt_get_messages", session_id=session_id, max_chars=20_000)
    assert default == told
