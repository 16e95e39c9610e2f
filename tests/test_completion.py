"""Completion: ids of the account, steps of a workflow, names of artifacts; nothing of anybody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import Completion, PromptReference, ResourceTemplateReference

from bilt_mcp.tools import uris

from .store_contract import SqliteBackend
from .support.agents import UNKNOWN, Agent, Hand, agent_at
from .support.agents import agent as agent  # a fixture, like the next two
from .support.agents import hand as hand
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio

STEPS = """
[[step]]
name = "Build all"
run = "true"
[[step]]
name = "bundle"
run = "true"
"""


async def completed(
    client: Client, ref: str, argument: str, typed: str = "", **given: str
) -> Completion:
    """What completes an argument of a template, or of a prompt where `ref` is no address."""
    reference: Any = (
        ResourceTemplateReference(uri=ref) if "://" in ref else PromptReference(name=ref)
    )
    asked = {"name": argument, "value": typed}
    found = (await client.complete(reference, asked, given or None)).completion
    assert len(found.values) <= 100
    return found


async def values(client: Client, ref: str, argument: str, typed: str = "", **given: str) -> Any:
    return (await completed(client, ref, argument, typed, **given)).values


async def test_ids_are_completed_from_their_first_characters(agent: Agent, hand: Hand) -> None:
    session_id, first = await agent.start()
    await hand.complete(await hand.claim())
    _, second = await agent.start()
    ask = agent.client
    for typed in ("", session_id[0], session_id[:20].upper(), session_id):
        assert await values(ask, uris.SESSION, "session_id", typed) == [session_id]
        assert await values(ask, "watch_build", "session_id", typed) == [session_id]
    assert await values(ask, uris.WORKFLOW, "workflow_id") == [second, first]
    assert await values(ask, uris.LOG, "workflow_id", second[:30]) == [second]
    within = {"session_id": session_id}
    assert await values(ask, uris.WORKFLOW, "workflow_id", **within) == [second, first]
    assert await values(ask, uris.WORKFLOW, "workflow_id", session_id=UNKNOWN) == []


async def test_steps_that_have_run_are_completed_for_a_given_workflow(
    agent: Agent, hand: Hand, place: Place
) -> None:
    place.workflow(STEPS)
    _, workflow_id = await agent.start()
    assert await values(agent.client, uris.LOG, "step", workflow_id=workflow_id) == []
    claim = await hand.claim()
    await hand.do_step(claim)
    for typed, found in (("", ["Build all"]), ("bui", ["Build all"]), ("bun", [])):
        given = {"workflow_id": workflow_id.upper()}
        assert await values(agent.client, uris.LOG, "step", typed, **given) == found
    assert await values(agent.client, uris.LOG, "step") == []
    assert (
        await values(agent.client, uris.LOG, "step", workflow_id=f"{workflow_id}/artifacts") == []
    )


async def test_names_of_artifacts_are_completed(agent: Agent, place: Place) -> None:
    _, workflow_id = await agent.start()
    folder = Path(place.location.run(workflow_id)) / "artifacts"
    folder.mkdir()
    for name in ("one.txt", "other.txt", "two.txt"):
        (folder / name).touch()
    found = await values(agent.client, uris.ARTIFACT, "path", "o", workflow_id=workflow_id)
    assert found == ["one.txt", "other.txt"]


async def test_nobody_completes_what_is_not_his(agent: Agent, hand: Hand, place: Place) -> None:
    session_id, workflow_id = await agent.start()
    await hand.do_step(await hand.claim())
    async with agent_at(place, "somebody else") as other:
        for ref, argument in ((uris.SESSION, "session_id"), (uris.WORKFLOW, "workflow_id")):
            assert await values(other.client, ref, argument) == []
            assert await values(other.client, ref, argument, session_id[:2]) == []
        assert await values(other.client, uris.LOG, "step", workflow_id=workflow_id) == []
        assert await values(other.client, uris.ARTIFACT, "path", workflow_id=workflow_id) == []


async def test_a_hundred_values_are_told_and_that_there_are_more(
    agent: Agent, place: Place
) -> None:
    project = (await agent.call("bilt_get_session"))["project_id"]
    backend = SqliteBackend(place.store.parent)
    assert backend.location == place.location
    newest = [backend.add_session("local", project) for _ in range(100)][::-1]
    found = await completed(agent.client, uris.SESSION, "session_id")
    assert (found.values, found.has_more, found.total) == (newest, True, None)
    few = await completed(agent.client, uris.SESSION, "session_id", newest[0])
    assert (few.values, few.has_more, few.total) == (newest[:1], False, 1)


@pytest.mark.parametrize(
    ("ref", "argument", "typed"),
    [
        ("no_such_prompt", "session_id", ""),
        ("watch_build", "no_such_argument", ""),
        ("bilt://no/such/{template}", "template", ""),
        (uris.SESSION, "workflow_id", ""),
        (uris.LOG, "from", "1"),
        (uris.SESSION, "session_id", "%' OR 1=1 --"),
        (uris.SESSION, "session_id", "\0"),
        (uris.SESSION, "session_id", "f" * 100_000),
    ],
)
async def test_what_nobody_can_complete_has_no_values(
    agent: Agent, ref: str, argument: str, typed: str
) -> None:
    await agent.session_id()
    assert await values(agent.client, ref, argument, typed) == []
