"""MCP over HTTP: the same tools as over stdio, in both eras, and every credential in a world of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from .support.agents import NO_SESSION
from .support.http_site import ERAS, HttpSite, identity, site_at
from .support.places import Place
from .support.places import place as place  # a fixture

pytestmark = pytest.mark.anyio

PEOPLE = {
    "alice": identity("alice"),
    "bob": identity("bob"),
    "eve": identity("eve", "others"),
    "reader": identity("reader", read_only=True),
}


@pytest.fixture
async def site(place: Place) -> AsyncGenerator[HttpSite]:
    async with site_at(place, PEOPLE) as found:
        yield found


@pytest.mark.parametrize("era", ERAS)
async def test_a_workflow_is_started_waited_for_and_read(site: HttpSite, era: str) -> None:
    async with site.agent(mode=era) as agent:
        session_id, workflow_id = await agent.start(wait_for_response=True)
        found = await agent.call("bilt_get_session", session_id=session_id)
        assert (found["status"], found["workflow_id"]) == ("completed", workflow_id)
        read = await agent.call("bilt_get_messages", session_id=session_id)
        assert "built" in [message["content"] for message in read["messages"]]


async def test_keys_of_one_account_see_the_same_sessions_and_those_of_another_nothing(
    site: HttpSite,
) -> None:
    async with site.agent("alice") as alice, site.agent("bob") as bob, site.agent("eve") as eve:
        session_id = await alice.session_id()
        assert await bob.session_id() == session_id
        assert await eve.call("bilt_get_session", session_id=session_id) == NO_SESSION
        print(await eve.call("bilt_list_projects"))
