"""MCP over HTTP: what cannot be taken is refused in words that its client shows, and nothing is left hanging."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from .support.agents import Json
from .support.agents import still as still  # a fixture, like the next one
from .support.http_site import ACCEPT, ERAS, HttpSite, answer, mcp_client, site_at
from .support.places import Place
from .support.places import place as place
from .support.rpc import ENVELOPE, STATELESS
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

PARSE, INVALID, MISMATCH, VERSION = -32700, -32600, -32020, -32022
HOLD = {"name": "bilt_get_session", "arguments": {"wait_seconds": 45}}
NO_MESSAGES = {
    b"": PARSE,
    b"{": PARSE,
    b"[" * 100_000: PARSE,
    b"\xff{": PARSE,
    b"[]": INVALID,
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]': INVALID,
    b"5": INVALID,
    b"null": INVALID,
    b"{}": INVALID,
    b'{"id":1,"method":"ping"}': INVALID,
    b'{"jsonrpc":"2.0","id":1}': INVALID,
    b'{"jsonrpc":"2.0","id":1,"method":5}': INVALID,
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}': INVALID,
    # These would be taken for notifications, and their senders would wait for ever.
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}': INVALID,
    b'{"jsonrpc":"2.0","id":true,"method":"ping"}': INVALID,
    b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}': INVALID,
    b'{"jsonrpc":"2.0","id":{},"method":"ping"}': INVALID,
}


@pytest.fixture
async def site(place: Place) -> AsyncGenerator[HttpSite]:
    async with site_at(place) as found:
        yield found


def told(found: httpx2.Response) -> tuple[int, int, object]:
    """The status, the code and the id of an error; its text is a sentence, and no validator's report."""
    error: Json = found.json()
    assert error["jsonrpc"] == "2.0"
    assert len(error["error"]["message"]) < 300
    assert "pydantic" not in found.text
    return found.status_code, error["error"]["code"], error["id"]


def ping(number: object = 1, **params: object) -> Json:
    return {"jsonrpc": "2.0", "id": number, "method": "ping", "params": params}


# -- bodies and headers ----------------------------------------------------------------------------


async def test_what_is_no_message_is_refused_with_a_sentence_and_the_session_goes_on(
    site: HttpSite,
) -> None:
    async with site.wire() as wire:
        await wire.handshake()
        modern = {"Accept": ACCEPT, "MCP-Protocol-Version": STATELESS, "Mcp-Method": "ping"}
        for headers in (wire.headers(), modern):
            for body, code in NO_MESSAGES.items():
                given = {**headers, "Content-Type": "application/json"}
                found = await wire.http.post(wire.url, content=body, headers=given)
                assert told(found) == (400, code, None), body[:60]
        assert (await wire.ask("ping"))["result"] == {}


async def test_a_version_that_nobody_serves_is_named_with_those_that_are(site: HttpSite) -> None:
    async with site.wire() as wire:
        await wire.handshake()
        for method in ("POST", "GET", "DELETE"):
            headers = {**wire.headers(), "MCP-Protocol-Version": "1999-01-01"}
            body = ping() if method == "POST" else None
            found = await wire.http.request(method, wire.url, json=body, headers=headers)
            assert told(found) == (400, VERSION, body and 1)
            assert found.json()["error"]["data"]["requested"] == "1999-01-01"
            assert STATELESS in found.json()["error"]["data"]["supported"]
        assert (await wire.ask("ping"))["result"] == {}


async def test_a_request_without_a_session_is_told_what_it_lacks_and_given_none(
    site: HttpSite,
) -> None:
    async with site.wire() as wire:
        plain = await wire.post(ping())
        stateless = await wire.post(ping(_meta=ENVELOPE))
        notification = await wire.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        asked = [await wire.request(method, "") for method in ("GET", "DELETE", "PUT")]
        assert told(plain) == (400, INVALID, 1)
        assert "initialize" in plain.json()["error"]["message"]
        assert told(stateless) == (400, MISMATCH, 1)
        assert told(notification) == (400, INVALID, None)
        assert [each.status_code for each in asked] == [400, 400, 405]
        assert asked[2].headers["allow"] == "GET, POST, DELETE"
        for each in (plain, stateless, notification, *asked):
            assert "mcp-session-id" not in each.headers


async def test_the_era_without_sessions_says_what_it_wants(site: HttpSite) -> None:
    async with site.wire() as wire:
        headers = {"MCP-Protocol-Version": STATELESS, "Accept": "application/json"}
        unread = await wire.http.post(wire.url, json=ping(_meta=ENVELOPE), headers=headers)
        assert told(unread) == (406, INVALID, None)
        assert ACCEPT in unread.json()["error"]["message"]
        asked = await wire.http.get(wire.url, headers=headers)
        assert told(asked) == (405, INVALID, None)
        assert asked.headers["allow"] == "POST"


# -- what clients show -----------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_with_a_wrong_key_shows_why(site: HttpSite, era: str) -> None:
    with pytest.RaisesGroup(MCPError, flatten_subgroups=True, allow_unwrapped=True) as refused:
        async with mcp_client(site.url, "bilt_live_wrong", era):
            pass
    assert "No key in use is this one. Keys are made with: bilt-mcp keys create" in _shown(refused)


async def test_a_client_whose_session_is_over_shows_that_nothing_else_is(site: HttpSite) -> None:
    async with site.agent("alice", "legacy") as alice:
        session_id = await alice.session_id()
        for served in site.mcp.servers.served.values():
            served.over.cancel()
        await wait_until(lambda: not site.mcp.servers.served, "the server has gone")
        with pytest.raises(MCPError, match=r"Connect again.*session_id values stay good"):
            await alice.call("bilt_get_session")
        async with site.agent("alice", "legacy") as again:
            found = await again.call("bilt_get_session", session_id=session_id)
            assert found["session_id"] == session_id


def _shown(raised: pytest.ExceptionInfo[BaseException]) -> str:
    found: BaseException = raised.value
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return str(found)


# -- nothing hangs ---------------------------------------------------------------------------------


async def test_of_two_requests_with_one_id_the_second_is_refused_and_the_first_answered(
    site: HttpSite,
) -> None:
    async with site.wire() as wire:
        await wire.handshake()
        call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": HOLD}
        answers: list[Json] = []

        async def hold() -> None:
            answers.append(answer(await wire.post(call)))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold)
                while not answers and (second := await wire.post(ping(7))).status_code == 200:
                    pass  # it was there first
                assert told(second) == (400, INVALID, 7)
                await wire.post(
                    {
                        "jsonrpc": "2.0",
                        "method": "notifications/cancelled",
                        "params": {"requestId": 7},
                    }
                )
        assert answers[0]["error"]["message"] == "Request cancelled"
        assert answer(await wire.post(ping(7)))["result"] == {}


async def test_one_id_serves_again_and_again(site: HttpSite) -> None:
    async with site.wire() as wire:
        await wire.handshake()
        for _ in range(30):
            assert answer(await wire.post(ping(1)))["result"] == {}


async def test_a_stream_can_be_asked_for_again_with_and_without_an_event(site: HttpSite) -> None:
    async with site.wire() as wire:
        await wire.handshake()
        lost = wire.http.stream("GET", wire.url, headers=wire.headers())
        async with lost as first:
            for more in ({}, {"Last-Event-ID": "7"}):
                headers = {**wire.headers(), **more}
                async with wire.http.stream("GET", wire.url, headers=headers) as second:
                    assert second.status_code == 200
                    assert second.headers["content-type"].startswith("text/event-stream")
            with anyio.fail_after(10):
                assert [line async for line in first.aiter_lines() if line.startswith("data")] == []
        assert (await wire.ask("ping"))["result"] == {}
