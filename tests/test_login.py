"""Logins over HTTP (CONTRACT section 4): the cookie, its end, its limits, and other sites that would use it."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime

import anyio
import httpx2
import pytest

from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import SqliteAccess, StoreLocation

from .support.chat import ASKS, Person, gather, logged_in, person
from .support.http import key_in, new_key, serving
from .support.places import Place, open_place

pytestmark = pytest.mark.anyio

PUBLIC = "https://bilt.example.com"
FRIEND = "https://app.example.com"
UNAUTHORIZED = 401, "unauthorized"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("login")) as found:
        found.workflow(ASKS)
        yield found


@pytest.fixture(scope="module")
async def server(place: Place) -> AsyncIterator[Listening]:
    settings = HttpSettings(public_urls=(PUBLIC,), origins=(FRIEND,), failure_rate=0)
    async with serving(place.config(), settings) as listening:
        yield listening


@pytest.fixture
async def stranger(server: Listening) -> AsyncIterator[Person]:
    async with person(server.url) as someone:
        yield someone


@pytest.fixture
async def alice(server: Listening, place: Place) -> AsyncIterator[Person]:
    async with logged_in(server.url, place, "alice") as someone:
        yield someone


def cookie_of(answer: httpx2.Response) -> tuple[str, set[str]]:
    """The value of the cookie that is set, and its attributes."""
    (header,) = answer.headers.get_list("set-cookie")
    first, *attributes = header.split("; ")
    name, _, value = first.partition("=")
    assert name == "session_id"
    return value, {attribute.lower() for attribute in attributes}


async def still_asks(server: Listening, thread: str) -> bool:
    """Whether the thread's question is open: looked at beside its routes, which count what they are asked."""
    store = await server.site.stores.get(StoreLocation.of(server.site.config.store))
    return (await store.session("local", thread)).pending_action is not None


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    """An error's status and code; its body has nothing else."""
    assert set(answer.json()) == {"error", "message"}
    assert answer.json()["message"]
    return answer.status_code, answer.json()["error"]


@pytest.fixture(scope="module")
async def signed_in(server: Listening, place: Place) -> AsyncIterator[Person]:
    """Somebody whom no limit stops, and whose login nobody ends."""
    async with logged_in(server.url, place, "victim") as someone:
        yield someone


@pytest.fixture(scope="module")
async def asked(signed_in: Person) -> str:
    """A thread that waits for an answer, and must still wait for it after all that is refused."""
    return str((await signed_in.say())["thread_id"])


# -- the cookie ----------------------------------------------------------------------------------


async def test_a_key_is_exchanged_for_a_cookie_that_no_script_and_no_other_site_can_use(
    stranger: Person, place: Place
) -> None:
    key = await key_in(place.config(), "exchange")
    before = time.time()
    answer = await stranger.post("/auth/login", {"key": key})
    assert answer.status_code == 200
    value, attributes = cookie_of(answer)
    assert attributes == {"httponly", "samesite=strict", "path=/", "max-age=43200"}
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", value), "256 bits"
    told = answer.json()
    expires = datetime.fromisoformat(told.pop("expires_at")).timestamp()
    assert 12 * 3600 - 1 <= expires - before <= 12 * 3600 + 60
    assert told == {"account": "local", "name": "exchange", "read_only": False}
    assert (await stranger.http.get("/auth/session")).json() == answer.json()


async def test_neither_the_key_nor_the_cookie_is_kept(alice: Person, place: Place) -> None:
    secret = alice.http.cookies["session_id"].encode()
    kept = [path for path in place.store.rglob("*") if path.is_file()]
    assert len(kept) > 3
    assert not [path for path in kept if secret in path.read_bytes()]
    assert not [path for path in kept if b"bilt_live_" + b"A" in path.read_bytes()]


@pytest.mark.parametrize(
    ("headers", "secure"),
    [
        ({"Host": "bilt.example.com", "X-Forwarded-Proto": "https"}, True),
        ({"Host": "bilt.example.com"}, True),
        ({"X-Forwarded-Proto": "https"}, True),
        ({}, False),
    ],
    ids=str,
)
async def test_where_the_cookie_leaves_the_machine_it_travels_encrypted_only(
    stranger: Person, place: Place, headers: dict[str, str], secure: bool
) -> None:
    key = await key_in(place.config(), f"secure {headers}")
    answer = await stranger.post("/auth/login", {"key": key}, **headers)
    assert ("secure" in cookie_of(answer)[1]) is secure


async def test_each_login_gets_another_cookie_and_ends_the_one_that_it_came_with(
    stranger: Person, server: Listening, place: Place
) -> None:
    key = {"key": await key_in(place.config(), "again")}
    first = cookie_of(await stranger.post("/auth/login", key))[0]
    second = cookie_of(await stranger.post("/auth/login", key))[0]
    assert first != second
    async with person(server.url, {"session_id": first}) as earlier:
        assert refusal(await earlier.http.get("/auth/session")) == UNAUTHORIZED
    async with person(server.url) as elsewhere:
        third = cookie_of(await elsewhere.post("/auth/login", key))[0]
    assert third not in (first, second)
    assert (await stranger.http.get("/auth/session")).status_code == 200


async def test_after_the_logout_the_cookie_is_gone_and_good_for_nothing(
    alice: Person, server: Listening
) -> None:
    secret = alice.http.cookies["session_id"]
    answer = await alice.http.post("/auth/logout")
    assert (answer.status_code, answer.content) == (204, b"")
    value, attributes = cookie_of(answer)
    assert value in ("", '""')
    assert {"max-age=0", "httponly", "samesite=strict", "path=/"} <= attributes
    async with person(server.url, {"session_id": secret}) as thief:
        assert refusal(await thief.http.get("/auth/session")) == UNAUTHORIZED
        assert refusal(await thief.post("/chat", {"user_message": "go"})) == UNAUTHORIZED


async def test_who_has_no_cookie_gets_nowhere(stranger: Person, place: Place) -> None:
    key = await key_in(place.config(), "bearer")
    for headers in ({}, {"Authorization": f"Bearer {key}"}, {"Cookie": "session_id=guessed"}):
        for path in ("/chat", "/chat/message", "/chat/confirm", "/chat/cancel", "/auth/logout"):
            assert refusal(await stranger.post(path, {}, **headers)) == UNAUTHORIZED
        for path in ("/chat/stream?thread_id=x", "/auth/session"):
            assert refusal(await stranger.http.get(path, headers=headers)) == UNAUTHORIZED
    cookie = {"Cookie": f"session_id={key}"}
    assert refusal(await stranger.http.get("/auth/session", headers=cookie)) == UNAUTHORIZED


@pytest.mark.parametrize("key", ["bilt_live_" + "A" * 43, "x", "bilt_live_", "é" * 500], ids=ascii)
async def test_a_key_that_is_none_logs_nobody_in(stranger: Person, key: str) -> None:
    answer = await stranger.post("/auth/login", {"key": key})
    assert answer.status_code in (400, 401)
    assert refusal(answer)[1] in ("unauthorized", "invalid_request")
    assert "set-cookie" not in answer.headers
    assert len(key) < 12 or key not in answer.text


@pytest.mark.parametrize("body", [{}, {"key": ""}, {"key": 5}, {"key": "x", "more": 1}, [], None])
async def test_a_login_without_a_key_is_refused(stranger: Person, body: object) -> None:
    assert refusal(await stranger.post("/auth/login", body)) == (400, "invalid_request")


async def test_a_key_that_is_revoked_ends_its_logins_at_once_and_their_streams_soon(
    stranger: Person, place: Place
) -> None:
    async with SqliteAccess(place.location) as access:
        key = await new_key(access, "revoked")
        await stranger.told("/auth/login", {"key": key})
        thread = (await stranger.say())["thread_id"]
        with anyio.fail_after(20):
            async with stranger.stream(thread) as events:
                assert (await anext(events)).name == "token"
                await access.revoke_key("revoked")
                assert refusal(await stranger.http.get("/auth/session")) == UNAUTHORIZED
                async for event in events:
                    assert event.name != "complete"
        assert refusal(await stranger.post("/chat/confirm", {"thread_id": thread})) == UNAUTHORIZED
        assert refusal(await stranger.post("/auth/login", {"key": key})) == UNAUTHORIZED


# -- limits --------------------------------------------------------------------------------------


async def test_a_login_may_ask_sixty_times_a_minute_and_another_one_of_the_key_as_often(
    alice: Person, server: Listening, place: Place
) -> None:
    key = {"key": await key_in(place.config(), "often")}
    async with person(server.url) as one, person(server.url) as two:
        await one.told("/auth/login", key)
        await two.told("/auth/login", key)
        answers = await gather(*(one.http.get("/auth/session") for _ in range(61)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert [refusal(answer) for answer in refused] == [(429, "rate_limited")]
        assert 1 <= int(refused[0].headers["retry-after"]) <= 60
        assert refused[0].headers["x-ratelimit-limit"] == "60"
        assert refused[0].headers["x-ratelimit-remaining"] == "0"
        assert refusal(await one.post("/chat/cancel", {"thread_id": "x"})) == (429, "rate_limited")
        assert (await two.http.get("/auth/session")).status_code == 200


async def test_who_guesses_keys_is_stopped_before_a_key_is_looked_up(place: Place) -> None:
    key = await key_in(place.config(), "guessed")
    async with (
        serving(place.config(), HttpSettings(failure_rate=5)) as listening,
        person(listening.url) as guesser,
    ):
        for number in range(5):
            answer = await guesser.post("/auth/login", {"key": f"bilt_live_{number}"})
            assert refusal(answer) == UNAUTHORIZED
        for guess in ("bilt_live_another", key):
            answer = await guesser.post("/auth/login", {"key": guess})
            assert refusal(answer) == (429, "rate_limited")
            assert int(answer.headers["retry-after"]) >= 1


# -- pages of other sites ------------------------------------------------------------------------

OURS: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": PUBLIC},
    {"Sec-Fetch-Site": "same-site", "Origin": FRIEND},
]
FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://evil.bilt.example.com"},
    {"Origin": "https://bilt.example.com.evil.example"},
    {"Origin": "http://bilt.example.com"},
    {"Origin": "https://bilt.example.com:8443"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": ""},
]
FORMS: list[tuple[str, bytes]] = [
    ("application/x-www-form-urlencoded", b"thread_id=%s"),
    ("text/plain", b'{"thread_id": "%s", "x": "="}'),
    ("text/plain; application/json", b'{"thread_id": "%s"}'),
    ("multipart/form-data; boundary=x", b'--x\r\n\r\n{"thread_id": "%s"}\r\n--x--'),
    ("", b'{"thread_id": "%s"}'),
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_page_of_another_site_can_do_nothing_with_the_cookie(
    signed_in: Person, server: Listening, asked: str, headers: dict[str, str]
) -> None:
    alice, thread = signed_in, asked
    for path in ("/chat/cancel", "/chat/confirm"):
        answer = await alice.post(path, {"thread_id": thread}, **headers)
        assert refusal(answer) == (403, "foreign_origin")
    for path in ("/chat", "/chat/message"):
        answer = await alice.post(path, {"user_message": "go", "thread_id": thread}, **headers)
        assert refusal(answer) == (403, "foreign_origin")
    for path in ("/auth/session", f"/chat/stream?thread_id={thread}"):
        answer = await alice.http.get(path, headers=headers)
        assert refusal(answer) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in answer.headers
    assert refusal(await alice.post("/auth/logout", {}, **headers)) == (403, "foreign_origin")
    preflight = await alice.http.options(
        "/chat/cancel", headers={**headers, "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in preflight.headers
    # All of it was refused, none of it was done.
    assert await still_asks(server, thread)


@pytest.mark.parametrize(("content_type", "body"), FORMS, ids=[form[0] for form in FORMS])
async def test_a_form_of_whatever_kind_is_not_read(
    signed_in: Person, server: Listening, asked: str, content_type: str, body: bytes
) -> None:
    alice, thread = signed_in, asked
    for path in ("/chat/cancel", "/chat/confirm"):
        answer = await alice.http.post(
            path,
            content=body % thread.encode(),
            headers={"Content-Type": content_type} if content_type else {},
        )
        assert refusal(answer) == (415, "unsupported_media_type")
    assert await still_asks(server, thread)


async def test_nothing_is_done_by_a_get(signed_in: Person, server: Listening, asked: str) -> None:
    alice, thread = signed_in, asked
    for path in ("/chat", "/chat/message", "/chat/confirm", "/chat/cancel", "/auth/logout"):
        answer = await alice.http.get(path, params={"thread_id": thread, "user_message": "go"})
        assert refusal(answer) == (405, "method_not_allowed")
    assert await still_asks(server, thread)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_page_of_another_site_cannot_log_anybody_in_as_its_own_author(
    stranger: Person, place: Place, headers: dict[str, str]
) -> None:
    key = await key_in(place.config(), f"evil {headers}")
    answer = await stranger.post("/auth/login", {"key": key}, **headers)
    assert refusal(answer) == (403, "foreign_origin")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("headers", OURS, ids=str)
async def test_our_own_page_an_allowed_one_and_a_program_may(
    alice: Person, headers: Mapping[str, str]
) -> None:
    thread = (await alice.say())["thread_id"]
    answer = await alice.post("/chat/cancel", {"thread_id": thread}, **headers)
    assert answer.json() == {
        "thread_id": thread,
        "status": "cancelled",
        "response": "Action cancelled.",
        "cancelled": True,
    }
    if "Origin" in headers:
        assert answer.headers["access-control-allow-origin"] == headers["Origin"]
        assert answer.headers["access-control-allow-credentials"] == "true"
