"""The gate's counting and its patience: rates, guessing, revocation, the end of the server, and failures behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from bilt_mcp.server.http import open_requests
from bilt_mcp.server.http.errors import Refused
from bilt_mcp.server.http.identity import identity_of, window_of
from bilt_mcp.server.http.open_requests import OpenRequests
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import SessionNotFound, StoreUnavailable

from .support.gated import JSON_TYPE, Exchange, Gated, gated
from .support.http import bearer, new_key
from .support.places import Place
from .support.places import place as place  # a fixture
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

NO_LIMITS = HttpSettings(key_rate=0, failure_rate=0)


async def who(request: Request) -> Response:
    """Say who asks, and what of his body came."""
    identity = identity_of(request.scope)
    window = window_of(request.scope)
    body = await request.body()
    told = {"name": identity.name, "account": str(identity.account), "bytes": len(body)}
    return JSONResponse({**told, "over": window is not None})


async def drip(_: Request) -> Response:
    """A stream without an end."""

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await anyio.sleep(0.01)

    return StreamingResponse(parts(), media_type="text/event-stream")


def failing(error: BaseException) -> Route:
    async def fail(_: Request) -> Response:
        raise error

    return Route(f"/v1/{type(error).__name__}", fail)


ROUTES: list[BaseRoute] = [
    Route("/v1/who", who, methods=["GET", "POST"]),
    Route("/mcp", who, methods=["GET", "POST"]),
    Route("/v1/drip", drip, methods=["GET"]),
]


# -- rates -----------------------------------------------------------------------------------------


async def test_of_a_crowd_exactly_as_many_are_let_in_as_the_rate_says_over_two_servers(
    place: Place,
) -> None:
    settings = HttpSettings(key_rate=7)
    async with gated(place.config(), ROUTES, settings) as one:
        key = await new_key(one.site.access)
        other_key = await new_key(one.site.access, "other")
        async with gated(place.config(), ROUTES, settings) as two:
            answers = await asyncio.gather(
                *(each.ask("GET", "/v1/who", bearer(key)) for each in [one, two] * 10)
            )
            in_, out = ([a for a in answers if a.status == status] for status in (200, 429))
            assert (len(in_), len(out)) == (7, 13)
            left = sorted(int(answer.headers["x-ratelimit-remaining"]) for answer in in_)
            assert left == list(range(7))
            for answer in answers:
                assert answer.headers["x-ratelimit-limit"] == "7"
                assert 0 <= int(answer.headers["x-ratelimit-reset"]) - time.time() <= 61
            for answer in out:
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert answer.json["code"] == "rate_limited"
                assert answer.json["reasonClass"] == "rate_limit"
                details = answer.json["details"]
                assert (details["limit"], details["remaining"]) == (7, 0)
                assert details["reset"] == int(answer.headers["x-ratelimit-reset"])
            assert (await two.ask("GET", "/v1/who", bearer(other_key))).status == 200


async def test_an_mcp_post_past_the_rate_is_let_through_marked_and_everything_else_is_not(
    place: Place,
) -> None:
    async with gated(place.config(), ROUTES, HttpSettings(key_rate=1)) as gate:
        key = await new_key(gate.site.access)
        first = await gate.ask("POST", "/mcp", {**bearer(key), **JSON_TYPE}, [b"{}"])
        assert (first.status, first.json["over"]) == (200, False)
        second = await gate.ask("POST", "/mcp", {**bearer(key), **JSON_TYPE}, [b"{}"])
        assert (second.status, second.json["over"]) == (200, True)
        assert (await gate.ask("GET", "/mcp", bearer(key))).status == 429
        assert (await gate.ask("GET", "/v1/who", bearer(key))).status == 429


async def test_guessing_is_stopped_by_address_before_the_key_is_looked_up(place: Place) -> None:
    async with gated(place.config(), ROUTES, HttpSettings(failure_rate=3)) as gate:
        key = await new_key(gate.site.access)
        assert (await gate.ask("GET", "/v1/who", bearer(key))).status == 200
        guesses = [await gate.ask("GET", "/v1/who", bearer(f"bilt_live_{n}")) for n in range(5)]
        assert [answer.status for answer in guesses] == [401, 401, 401, 429, 429]
        assert int(guesses[-1].headers["retry-after"]) >= 1
        # Not even a key that is good tells its guesser so, or whoever shares his address.
        assert (await gate.ask("GET", "/v1/who", bearer(key))).status == 429
        other = await gate.ask("GET", "/v1/who", bearer(key), client="192.0.2.7")
        assert other.status == 200


async def test_guessers_in_one_ipv6_network_are_one(place: Place) -> None:
    async with gated(place.config(), ROUTES, HttpSettings(failure_rate=2)) as gate:
        statuses = [
            (await gate.ask("GET", "/v1/who", bearer("x"), client=f"2001:db8::{n}")).status
            for n in range(1, 5)
        ]
        assert statuses == [401, 401, 429, 429]
        elsewhere = await gate.ask("GET", "/v1/who", bearer("x"), client="2001:db8:0:1::1")
        assert elsewhere.status == 401


async def test_asking_without_a_key_is_no_guess(place: Place) -> None:
    async with gated(place.config(), ROUTES, HttpSettings(failure_rate=2)) as gate:
        assert {(await gate.ask("GET", "/v1/who")).status for _ in range(6)} == {401}


async def test_a_key_is_in_no_log_and_no_answer(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    routes = [*ROUTES, failing(RuntimeError("broken"))]
    async with gated(place.config(), routes, NO_LIMITS) as gate:
        key = await new_key(gate.site.access)
        answers = [
            await gate.ask("GET", path, bearer(secret))
            for path in ("/v1/who", "/v1/RuntimeError", "/v1/none")
            for secret in (key, "bilt_live_guess")
        ]
        told = caplog.text + "".join(f"{a.body!r}{a.headers}" for a in answers)
        assert "broken" in told
        assert key not in told
        assert "bilt_live_guess" not in told


# -- revoked, stopping -----------------------------------------------------------------------------


async def test_the_streams_of_a_revoked_key_end_within_two_seconds_and_nobody_elses(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    really = OpenRequests._look  # pyright: ignore[reportPrivateUsage]

    async def look(requests: OpenRequests, before: float) -> None:
        looks.append(before)
        await really(requests, before)

    monkeypatch.setattr(OpenRequests, "_look", look)
    async with gated(place.config(), ROUTES, NO_LIMITS) as gate:
        access = gate.site.access
        keys = {name: await new_key(access, name) for name in ("leaves", "stays")}
        streams = {name: Exchange() for name in keys}
        async with anyio.create_task_group() as tasks:
            for name, key in keys.items():
                tasks.start_soon(stream, gate, key, streams[name])
            await wait_until(lambda: all(s.body for s in streams.values()), "both streams run")
            await access.revoke_key("leaves")
            looks.clear()
            await wait_until(lambda: streams["leaves"].is_complete, "the stream has ended")
            # One look a second: the first may have been under way, the second must see it.
            assert len(looks) <= 2
            assert open_requests.LOOK_SECONDS <= 1.0
            before = len(streams["stays"].body)
            await wait_until(lambda: len(streams["stays"].body) > before, "the other goes on")
            assert not streams["stays"].is_complete
            tasks.cancel_scope.cancel()
        assert len(gate.site.requests) == 0


async def test_a_request_that_is_held_when_its_key_is_revoked_is_answered_with_401(
    place: Place,
) -> None:
    async def hold(_: Request) -> Response:
        await anyio.sleep_forever()
        raise AssertionError

    routes = [Route("/v1/hold", hold)]
    async with gated(place.config(), routes, NO_LIMITS) as gate:
        key = await new_key(gate.site.access, "held")
        held = Exchange()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: gate.ask("GET", "/v1/hold", bearer(key), exchange=held))
            await wait_until(lambda: len(gate.site.requests) == 1, "the request is held")
            await gate.site.access.revoke_key("held")
        assert (held.status, held.json["code"]) == (401, "unauthorized")


async def test_when_the_server_stops_streams_end_at_once_and_the_rest_is_answered(
    place: Place,
) -> None:
    release = anyio.Event()

    async def slow(_: Request) -> Response:
        await release.wait()
        return JSONResponse({"done": True})

    routes = [*ROUTES, Route("/v1/slow", slow, methods=["POST"])]
    async with gated(place.config(), routes, NO_LIMITS) as gate:
        key = await new_key(gate.site.access)
        listening, working = Exchange(), Exchange()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream, gate, key, listening)
            tasks.start_soon(lambda: gate.ask("POST", "/v1/slow", bearer(key), exchange=working))
            await wait_until(lambda: len(gate.site.requests) == 2, "both are open")
            await wait_until(lambda: bool(listening.body), "the stream runs")
            gate.site.stopping.set()
            await wait_until(lambda: listening.is_complete, "the stream has ended")
            late = await gate.ask("GET", "/v1/who", bearer(key))
            assert (late.status, late.json["code"]) == (503, "stopping")
            assert late.headers["retry-after"] == "1"
            assert not working.status
            release.set()
            await gate.site.requests.all_answered()
        assert (working.status, working.json) == (200, {"done": True})


async def test_who_is_still_sending_when_the_server_stops_is_told_so_at_once(place: Place) -> None:
    async with gated(place.config(), ROUTES, NO_LIMITS) as gate:
        headers = {**bearer(await new_key(gate.site.access)), **JSON_TYPE}
        sending = Exchange()

        async def send() -> None:
            await gate.ask("POST", "/v1/who", headers, [b"{"], exchange=sending, stalls=True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await wait_until(lambda: len(gate.site.requests) == 1, "it is being sent")
            gate.site.stopping.set()
            await wait_until(lambda: sending.is_complete, "it is answered", timeout=15)
        assert (sending.status, sending.json["code"]) == (503, "stopping")
        assert sending.headers["retry-after"] == "1"


async def test_a_request_that_does_not_end_does_not_keep_the_server(place: Place) -> None:
    async def hold(_: Request) -> Response:
        await anyio.sleep_forever()
        raise AssertionError

    async with gated(
        place.config(), [Route("/v1/hold", hold, methods=["POST"])], NO_LIMITS
    ) as gate:
        key = await new_key(gate.site.access)
        held = Exchange()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: gate.ask("POST", "/v1/hold", bearer(key), exchange=held))
            await wait_until(lambda: len(gate.site.requests) == 1, "the request is held")
            await gate.site.requests.all_answered(0.05)
        assert held.status == 503


# -- bodies and failures ---------------------------------------------------------------------------


async def test_a_body_that_does_not_arrive_is_not_waited_for(place: Place) -> None:
    settings = HttpSettings(key_rate=0, body_seconds=0.05)
    async with gated(place.config(), ROUTES, settings) as gate:
        key = await new_key(gate.site.access)
        headers = {**bearer(key), **JSON_TYPE}
        found = await gate.ask("POST", "/v1/who", headers, [b"{"], stalls=True)
        assert (found.status, found.json["code"]) == (408, "request_timeout")
        assert found.headers["connection"] == "close"


async def test_no_more_of_a_body_is_read_than_is_needed_to_refuse_it(place: Place) -> None:
    settings = HttpSettings(key_rate=0, most_body_bytes=10)
    async with gated(place.config(), ROUTES, settings) as gate:
        key = await new_key(gate.site.access)
        headers = {**bearer(key), **JSON_TYPE}
        announced = await gate.ask("POST", "/v1/who", {**headers, "Content-Length": "11"}, [b"x"])
        assert announced.status == 413
        found = await gate.ask("POST", "/v1/who", headers, [b"12345"] * 2)
        assert (found.status, found.json["bytes"]) == (200, 10)
        stranger = await gate.ask("POST", "/v1/who", JSON_TYPE, [b"12345"] * 2)
        assert stranger.status == 401


async def test_who_goes_on_sending_after_a_refusal_is_heard_out_for_a_moment_only(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.server.http.body.LINGER_SECONDS", 0.2)
    settings = HttpSettings(key_rate=0, most_body_bytes=1)
    async with gated(place.config(), ROUTES, settings) as gate:
        key = await new_key(gate.site.access)
        headers = {**bearer(key), **JSON_TYPE}
        found = await gate.ask("POST", "/v1/who", headers, [b"12"] * 3, stalls=True)
        assert (found.status, found.headers["connection"]) == (413, "close")
        assert found.parts_read == 3
        assert found.is_complete


async def test_failures_behind_the_gate_have_the_documented_shapes_and_tell_no_secret(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    routes = [
        failing(Refused(418, "teapot", "It is a teapot.", details={"short": True})),
        failing(SessionNotFound("No such run.")),
        failing(StoreUnavailable("The store is away.")),
        failing(RuntimeError("a secret of ours")),
        failing(SystemExit(3)),
    ]
    async with gated(place.config(), routes, NO_LIMITS) as gate:
        key = await new_key(gate.site.access)
        found = {
            name: await gate.ask("GET", f"/v1/{name}", bearer(key))
            for name in (
                "Refused",
                "SessionNotFound",
                "StoreUnavailable",
                "RuntimeError",
                "SystemExit",
            )
        }
        shapes = {name: (each.status, each.json["code"]) for name, each in found.items()}
        assert shapes == {
            "Refused": (418, "teapot"),
            "SessionNotFound": (404, "run_not_found"),
            "StoreUnavailable": (503, "store_unavailable"),
            "RuntimeError": (500, "internal_error"),
            "SystemExit": (500, "internal_error"),
        }
        for each in found.values():
            assert each.json["requestId"] == each.headers["x-request-id"]
            assert b"secret" not in each.body
        error_id = found["RuntimeError"].json["details"]["error_id"]
        assert f"error_id {error_id}" in caplog.text
        assert "a secret of ours" in caplog.text


async def test_an_unknown_path_is_told_only_to_who_has_a_key(place: Place) -> None:
    async with gated(place.config(), ROUTES, NO_LIMITS) as gate:
        key = await new_key(gate.site.access)
        assert (await gate.ask("GET", "/nothing")).status == 401
        found = await gate.ask("GET", "/nothing", bearer(key))
        assert (found.status, found.json["code"]) == (404, "not_found")
        beside = await gate.ask("GET", "/mcp/", bearer(key))
        assert beside.status == 404
        assert "The path of MCP is /mcp" in beside.json["error"]["message"]
        wrong = await gate.ask("POST", "/v1/drip", bearer(key))
        assert (wrong.status, wrong.json["code"]) == (405, "method_not_allowed")


async def test_without_keys_everybody_is_this_machines_user_and_nobody_is_counted(
    place: Place,
) -> None:
    async with gated(place.config(), ROUTES, HttpSettings(no_auth=True, key_rate=1)) as gate:
        for _ in range(3):
            found = await gate.ask("GET", "/v1/who")
            assert (found.status, found.json["account"]) == (200, "local")
            assert "x-ratelimit-limit" not in found.headers


@pytest.mark.parametrize("name", ["Host", "Origin", "Authorization", "Content-Type"])
async def test_a_header_that_decides_and_comes_twice_is_refused(place: Place, name: str) -> None:
    async with gated(place.config(), ROUTES, NO_LIMITS) as gate:
        key = await new_key(gate.site.access)
        twice = {name.upper(): "a", name.lower(): "b"}
        found = await gate.ask("GET", "/v1/who", {**bearer(key), **twice})
        assert (found.status, found.json["code"]) == (400, "invalid_request")


async def stream(gate: Gated, key: str, into: Exchange) -> None:
    await gate.ask("GET", "/v1/drip", bearer(key), exchange=into)
