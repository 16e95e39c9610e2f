"""MCP over HTTP: live updates, held answers and questions, in both eras, and what is left when a client goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client import ClientRequestContext
from mcp.client.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequestParams, ElicitResult

from bilt_mcp.server.http import mcp_servers
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import SqliteStore, Watch

from .support.agents import DEPLOYING, Agent, Hand, Json
from .support.agents import hand as hand  # a fixture, like the next ones
from .support.agents import still as still
from .support.http_site import ERAS, HttpSite, answer, site_at
from .support.places import Place
from .support.places import place as place
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

PROMPT_SECONDS = 30.0


@pytest.fixture
async def site(place: Place) -> AsyncGenerator[HttpSite]:
    async with site_at(place) as found:
        yield found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sessions of which somebody waits for news, for each who does."""
    waiting: list[str] = []
    plain = SqliteStore.watch

    @contextmanager
    def watch(store: SqliteStore, account: str, session_id: str) -> Generator[Watch]:
        waiting.append(session_id)
        try:
            with plain(store, account, session_id) as news:
                yield news
        finally:
            waiting.remove(session_id)

    monkeypatch.setattr(SqliteStore, "watch", watch)
    return waiting


def listeners(site: HttpSite, session_id: str) -> int:
    return site.site.stores.audience.count(session_id)


# -- live updates --------------------------------------------------------------------------------


async def test_one_who_listens_is_told_what_a_client_of_another_key_does(site: HttpSite) -> None:
    async with site.agent("alice") as alice, site.agent("bob", "legacy") as bob:
        session_id = await bob.session_id()
        uri = f"bilt://sessions/{session_id}"
        async with alice.client.listen(resource_subscriptions=[uri]) as stream:
            assert listeners(site, session_id) == 1
            await bob.start()
            with anyio.fail_after(PROMPT_SECONDS):
                assert await anext(aiter(stream)) == ResourceUpdated(uri)
        await wait_until(lambda: listeners(site, session_id) == 0, "the stream has ended")


async def test_of_another_accounts_session_nobody_is_told(site: HttpSite) -> None:
    async with site.agent("alice") as alice, site.agent("eve") as eve:
        session_id = await alice.session_id()
        uri = f"bilt://sessions/{session_id}"
        async with eve.client.listen(resource_subscriptions=[uri]) as stream:
            assert not stream.honored.resource_subscriptions
            assert listeners(site, session_id) == 0


@pytest.mark.parametrize("end", ["DELETE", "idle", "unsubscribe"])
async def test_a_session_that_is_over_watches_nothing_any_more(
    site: HttpSite, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.agent("bob") as bob, site.wire("alice") as alice:
        session_id = await bob.session_id()
        uri = f"bilt://sessions/{session_id}"
        await alice.handshake()
        assert (await alice.ask("resources/subscribe", uri=uri))["result"] == {}
        assert listeners(site, session_id) == 1
        if end == "DELETE":
            await alice.request("DELETE", alice.session)
        elif end == "unsubscribe":
            await alice.ask("resources/unsubscribe", uri=uri)
        else:
            monkeypatch.setattr(mcp_servers, "IDLE_SECONDS", 0.05)
            await alice.ask("ping")
        await wait_until(lambda: listeners(site, session_id) == 0, "nobody listens")


async def test_in_the_era_with_sessions_changes_come_on_the_sessions_stream(site: HttpSite) -> None:
    async with site.agent("bob") as bob, site.wire("alice") as alice:
        session_id = await bob.session_id()
        uri = f"bilt://sessions/{session_id}"
        await alice.handshake()
        async with alice.http.stream("GET", alice.url, headers=alice.headers()) as stream:
            await alice.ask("resources/subscribe", uri=uri)
            await bob.start()
            with anyio.fail_after(PROMPT_SECONDS):
                lines = stream.aiter_lines()
                line = await anext(lines)
                while not line.startswith("data: "):
                    line = await anext(lines)
        assert '"notifications/resources/updated"' in line
        assert uri in line


async def test_streams_of_one_key_are_bounded_and_those_of_another_are_not_its_matter(
    site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_servers, "MOST_STREAMS", 1)
    async with site.agent("alice") as alice, site.agent("bob") as bob:
        uri = f"bilt://sessions/{await alice.session_id()}"
        async with alice.client.listen(resource_subscriptions=[uri]):
            with pytest.raises(MCPError, match="At most 1"):
                async with alice.client.listen(resource_subscriptions=[uri]):
                    pass
            async with bob.client.listen(resource_subscriptions=[uri]):
                pass


async def test_a_server_that_stops_ends_streams_well(site: HttpSite) -> None:
    async with site.agent("alice") as alice:
        uri = f"bilt://sessions/{await alice.session_id()}"
        async with alice.client.listen(resource_subscriptions=[uri]) as stream:
            site.site.stopping.set()
            with anyio.fail_after(PROMPT_SECONDS):
                assert [event async for event in stream] == []


# -- held answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_goes_while_it_waits_changes_nothing(
    site: HttpSite, hand: Hand, held: list[str], era: str
) -> None:
    async with site.agent("bob") as bob:
        session_id = await bob.session_id()
        async with site.agent("alice", era) as alice:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(waits, alice, session_id)
                await wait_until(lambda: held == [session_id], "the call is held")
                tasks.cancel_scope.cancel()
            await wait_until(lambda: not held, "nothing is held any more")
            assert (await bob.call("bilt_get_session"))["status"] == "pending"
            claim = await hand.claim()
            await hand.do_step(claim)
            await hand.complete(claim)
            assert (await bob.call("bilt_get_session"))["status"] == "completed"


async def waits(agent: Agent, session_id: str) -> None:
    given = {"session_id": session_id, "message": "build", "wait_for_response": True}
    await agent.call("bilt_send_message", **given)
    raise AssertionError("nothing has happened that it could wait for")


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_stops_answers_who_waits(
    site: HttpSite, era: str, held: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.tools.waiting.BEAT_SECONDS", 0.1)
    async with site.agent("alice", era) as alice:
        session_id = await alice.session_id()
        told: list[Json] = []

        async def hold() -> None:
            told.append(await alice.call("bilt_get_session", wait_seconds=45))

        with anyio.fail_after(PROMPT_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold)
                await wait_until(lambda: held == [session_id], "it is held")
                site.site.stopping.set()
        assert told[0]["status"] == "idle"


@pytest.mark.parametrize("era", ERAS)
async def test_who_is_held_is_told_that_his_call_is_alive(
    site: HttpSite, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.tools.waiting.BEAT_SECONDS", 0.05)
    async with site.agent("alice", era) as alice:
        told: list[str | None] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            told.append(message)

        given = {"wait_seconds": 0.5}
        with anyio.fail_after(PROMPT_SECONDS):
            while not told:
                await alice.client.call_tool("bilt_get_session", given, progress_callback=note)


@pytest.mark.parametrize("era", ERAS)
async def test_a_proxy_sees_something_of_a_silent_call_in_time(
    site: HttpSite, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp.server._streamable_http_modern._SSE_PING_INTERVAL", 0.05)
    monkeypatch.setattr("sse_starlette.EventSourceResponse.DEFAULT_PING_INTERVAL", 0.05)
    async with site.wire("alice") as alice:
        if era == "legacy":
            await alice.handshake()

        async def hold() -> httpx2.Response:
            if era == "auto":
                return await alice.call("bilt_get_session", wait_seconds=0.5)
            params = {"name": "bilt_get_session", "arguments": {"wait_seconds": 0.5}}
            return await alice.post(
                {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
            )

        with anyio.fail_after(PROMPT_SECONDS):
            while ": ping" not in (found := await hold()).text:
                pass
        assert answer(found)["result"]["structuredContent"]["status"] == "idle"


# -- questions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("era", ERAS)
async def test_a_person_answers_a_gate_through_a_client(
    site: HttpSite, place: Place, hand: Hand, era: str, said: bool
) -> None:
    asked: list[str] = []

    async def person(_: ClientRequestContext, question: ElicitRequestParams) -> ElicitResult:
        asked.append(question.message)
        if said:
            return ElicitResult(action="accept", content={"confirm": True})
        return ElicitResult(action="decline")

    async with site.agent("alice", era, elicitation_callback=person) as alice:
        of = await at_gate(alice, place, hand)
        told = await alice.call("bilt_confirm_action", **of)
        assert told["answer"] == ("confirmed" if said else "declined")
        assert len(asked) == 1
    audit = place.rows("SELECT action, principal, client, surface FROM audit ORDER BY n")[-1]
    done = "confirm" if said else "decline"
    assert audit == (done, "key alice", "the user of by-hand 1", "mcp elicitation")


async def test_a_person_who_answers_past_the_rate_is_heard(place: Place, hand: Hand) -> None:
    async with site_at(place, HttpSettings(key_rate=20)) as site, site.wire() as wire:

        async def person(_: ClientRequestContext, __: ElicitRequestParams) -> ElicitResult:
            while (await wire.modern("tools/list")).status_code != 429:
                pass
            return ElicitResult(action="accept", content={"confirm": True})

        async with site.agent("alice", "legacy", elicitation_callback=person) as alice:
            of = await at_gate(alice, place, hand)
            with anyio.fail_after(PROMPT_SECONDS):
                told = await alice.call("bilt_confirm_action", **of)
            assert told["answer"] == "confirmed"


async def test_a_question_that_nobody_will_answer_does_not_hold_up_the_end(
    place: Place, hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    async with site_at(place) as site:
        async with site.agent() as alice:
            of = await at_gate(alice, place, hand)
        async with site.wire() as wire:
            await wire.handshake(elicitation={})
            params = {"name": "bilt_confirm_action", "arguments": of}
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            asking = wire.http.stream("POST", wire.url, json=call, headers=wire.headers())
            async with asking as asked:
                async for line in asked.aiter_lines():
                    if "elicitation/create" in line:
                        break
    assert "gave up" not in caplog.text  # each would have cost seconds


async def at_gate(agent: Agent, place: Place, hand: Hand) -> dict[str, Any]:
    """Start a workflow that asks at once; the arguments of the answer."""
    place.workflow(DEPLOYING)
    session_id, _ = await agent.start("deploy")
    claim = await hand.claim()
    await hand.do_step(claim)
    await hand.pause(claim, "Ship?")
    gate = (await agent.call("bilt_get_session", session_id=session_id))["pending_action"]
    return {"session_id": session_id, "action_id": gate["action_id"]}


async def test_an_answer_is_good_after_the_server_was_started_again(
    place: Place, hand: Hand
) -> None:
    async with site_at(place) as before, before.agent("alice") as alice:
        of = await at_gate(alice, place, hand)
        async with before.wire("alice") as wire:
            asked = await wire.may_ask("bilt_confirm_action", of)
        assert asked["resultType"] == "input_required"
    (key,) = asked["inputRequests"]
    given: Json = {
        "inputResponses": {key: {"action": "accept", "content": {"confirm": True}}},
        "requestState": asked["requestState"],
    }
    async with site_at(place, keys=before.keys) as after:
        async with after.wire("eve") as eve:
            told = await eve.may_ask("bilt_confirm_action", of, **given)
            assert told["structuredContent"]["error"] == "Session not found"
        async with after.wire("bob") as bob:
            told = await bob.may_ask("bilt_confirm_action", of, **given)
            assert told["structuredContent"]["answer"] == "confirmed"
