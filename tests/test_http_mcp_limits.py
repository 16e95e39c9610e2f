"""MCP over HTTP: what there may be of anything, and that what is over leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from bilt_mcp.server.http import mcp_servers, mcp_sessions
from bilt_mcp.server.http.settings import HttpSettings

from .support.agents import Json
from .support.agents import still as still  # a fixture, like the next one
from .support.http_site import ERAS, HttpSite, answer, site_at
from .support.places import Place
from .support.places import place as place
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def site(place: Place) -> AsyncGenerator[HttpSite]:
    async with site_at(place) as found:
        yield found


# -- the rate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
async def test_a_tool_call_past_the_rate_is_answered_as_documented(place: Place, era: str) -> None:
    async with site_at(place, HttpSettings(key_rate=8)) as site, site.agent("alice", era) as alice:
        told: Json = {}
        for _ in range(8):
            told = await alice.call("bilt_get_session")
            if "error" in told:
                break
        assert told["error"] == "Rate limit exceeded"
        details = told["details"]
        assert 30 <= details.pop("retry_after_seconds") <= 60
        assert 30 <= details.pop("reset") - time.time() <= 61
        assert "call again" in details.pop("message")
        assert details == {"limit": 8, "remaining": 0}
        with pytest.raises(MCPError) as refused:
            await alice.client.list_tools()
        assert "8 times in any 60 seconds" in refused.value.error.message
        async with site.agent("bob", era) as bob:
            assert "status" in await bob.call("bilt_get_session")


async def test_past_the_rate_every_request_is_told_when_to_come_again(place: Place) -> None:
    async with site_at(place, HttpSettings(key_rate=1)) as site, site.wire("alice") as alice:
        assert answer(await alice.call("bilt_list_projects"))["result"]["isError"] is False
        called = await alice.call("bilt_cancel_workflow", session_id="whatever it is")
        assert called.status_code == 200
        assert 30 <= int(called.headers["retry-after"]) <= 60
        assert called.headers["x-ratelimit-remaining"] == "0"
        assert answer(called)["result"]["isError"] is True
        for message, request_id in (
            (b'{"jsonrpc":"2.0","id":"a","method":"tools/list"}', "a"),
            (b'{"jsonrpc":"2.0","method":"tools/call"}', None),
            (b'{"jsonrpc":"2.0","id":{},"method":"tools/call"}', None),
            (b'["no","object"]', None),
            (b"[" * 100_000, None),
            (b"\xff{", None),
        ):
            headers = {**alice.headers(), "Content-Type": "application/json"}
            found = await alice.http.post(alice.url, content=message, headers=headers)
            assert found.status_code == 429
            assert 30 <= int(found.headers["retry-after"]) <= 60
            assert found.json()["error"]["data"]["error"] == "Rate limit exceeded"
            assert found.json()["id"] == request_id


async def test_what_ends_a_call_that_was_let_in_is_taken_past_the_rate(place: Place) -> None:
    async with site_at(place, HttpSettings(key_rate=4)) as site, site.wire("alice") as alice:
        await alice.handshake()
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        about = {"name": "bilt_get_session", "arguments": {"wait_seconds": 45}}
        call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": about}
        async with alice.http.stream("POST", alice.url, json=call, headers=alice.headers()) as held:
            assert held.status_code == 200
            while (await alice.post({**call, "id": 8, "method": "ping"})).status_code != 429:
                pass
            ended = await alice.post({**cancel, "params": {"requestId": 7}})
            assert (ended.status_code, ended.headers["x-ratelimit-remaining"]) == (202, "0")
            with anyio.fail_after(20):
                assert "Request cancelled" in (await held.aread()).decode()
        assert (await alice.post({**cancel, "id": 9})).status_code == 429


# -- sessions ------------------------------------------------------------------------------------


async def test_the_session_that_was_idle_for_longest_makes_room(
    site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_sessions, "MOST_SESSIONS", 2)
    async with site.wire() as first, site.wire() as second, site.wire() as third:
        await first.handshake()
        await second.handshake()
        assert (await first.ask("ping"))["result"] == {}
        await third.handshake()
        gone = await second.request("POST", second.session)
        assert gone.status_code == 404
        for wire in (first, third):
            assert (await wire.ask("ping"))["result"] == {}


async def test_clients_that_begin_at_once_find_room_beside_those_that_went(
    site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_sessions, "MOST_SESSIONS", 4)
    statuses: list[int] = []

    async def begin() -> None:
        async with site.wire() as wire:
            statuses.append((await wire.handshake()).status_code)

    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(begin)
    assert statuses == [200] * 12


async def test_a_session_that_is_in_use_makes_no_room(
    site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_sessions, "MOST_SESSIONS", 1)
    async with site.wire() as first, site.wire() as second:
        await first.handshake()
        stream = first.http.stream("GET", first.url, headers=first.headers())
        async with stream as opened:
            assert opened.status_code == 200
            refused = await second.handshake()
            assert refused.status_code == 503
        assert (await first.ask("ping"))["result"] == {}
        while (await second.handshake()).status_code != 200:
            pass  # the server learns of the stream's end a little later


async def test_a_session_that_its_client_ends_makes_room_and_is_unknown(site: HttpSite) -> None:
    async with site.wire() as wire:
        await wire.handshake()
        ended = await wire.request("DELETE", wire.session)
        assert ended.status_code == 200
        for method in ("POST", "GET", "DELETE"):
            assert (await wire.request(method, wire.session)).status_code == 404


async def test_what_begins_no_session_leaves_none(
    site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_sessions, "MOST_SESSIONS", 1)
    async with site.wire() as wire, site.wire() as other:
        for method in ("POST", "GET", "DELETE", "PUT"):
            assert (await other.request(method, "")).status_code >= 400
        await wire.handshake()
        for method in ("POST", "GET", "DELETE", "PUT"):
            # A session makes room only for one that begins.
            assert (await other.request(method, "")).status_code >= 400
        assert (await wire.ask("ping"))["result"] == {}


# -- servers -------------------------------------------------------------------------------------


async def test_a_server_that_nobody_uses_goes_and_comes_again(
    site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.wire("alice") as alice, site.wire("bob") as bob:
        await alice.handshake()
        stream = alice.http.stream("GET", alice.url, headers=alice.headers())
        async with stream:
            monkeypatch.setattr(mcp_servers, "IDLE_SECONDS", 0.05)
            await alice.ask("ping")
            await bob.modern("tools/list")
            await wait_until(lambda: site.servers == ["alice"], "bob's server has gone")
        await wait_until(lambda: site.servers == [], "alice's server has gone")
        assert (await alice.request("POST", alice.session)).status_code == 404
        assert answer(await bob.modern("tools/list"))["result"]["tools"]


async def test_the_server_that_was_idle_for_longest_makes_room(
    site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_servers, "MOST_SERVERS", 2)
    async with site.wire("alice") as alice, site.wire("bob") as bob, site.wire("reader") as reader:
        await alice.handshake()
        async with alice.http.stream("GET", alice.url, headers=alice.headers()):
            await bob.modern("tools/list")
            await reader.modern("tools/list")
            assert site.servers == ["alice", "reader"]
        assert (await alice.ask("ping"))["result"] == {}
