"""Access tokens of an OAuth issuer: which let somebody in, as whom, and which do not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import anyio
import jwt
import pytest

from bilt_mcp.server.http import issuer_keys, well_known
from bilt_mcp.server.http.settings import HttpSettings

from .support.gated import JSON_TYPE, Exchange, Gated, gated
from .support.http import bearer, new_key
from .support.issuer import AUDIENCE, Issuer, issuing
from .support.places import Place
from .support.places import place as place  # a fixture
from .support.waiting import wait_until
from .test_gate_limits import ROUTES

pytestmark = pytest.mark.anyio

KEY_WAS_ASKED_AGAIN = 0.0


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as found:
        yield found


@pytest.fixture
async def gate(place: Place, issuer: Issuer) -> AsyncGenerator[Gated]:
    async with gated(place.config(), ROUTES, settings(issuer, failure_rate=0)) as found:
        yield found


def settings(issuer: Issuer, **more: Any) -> HttpSettings:
    return HttpSettings(oauth_issuer=issuer.url, oauth_audience=AUDIENCE, **more)


async def ask(gate: Gated, token: str, path: str = "/v1/who") -> Exchange:
    return await gate.ask("GET", path, bearer(token))


# -- good ones -------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [False, True], ids=["RS256", "ES256"])
async def test_a_token_that_the_issuer_has_signed_for_this_server_lets_in(
    gate: Gated, issuer: Issuer, curve: bool
) -> None:
    issuer.rotate("key", curve=curve)
    found = await ask(gate, issuer.token(email="alice@example.com"))
    assert (found.status, found.json["name"]) == (200, "alice@example.com")
    assert found.headers["x-ratelimit-limit"] == "100"


async def test_everybody_has_an_account_of_his_own_unless_the_issuer_names_one(
    gate: Gated, issuer: Issuer
) -> None:
    async def account(**claims: Any) -> str:
        return str((await ask(gate, issuer.token(**claims))).json["account"])

    alice = await account()
    assert alice == await account(email="other@example.com")
    assert alice not in ("local", "alice", await account(sub="bob"))
    assert await account(bilt_account="team") == "team"
    assert await account(sub="bob", bilt_account="team") == "team"
    wrong = await ask(gate, issuer.token(bilt_account="../../etc"))
    assert wrong.status == 401


async def test_all_tokens_of_a_person_are_counted_as_one(place: Place, issuer: Issuer) -> None:
    async with gated(place.config(), ROUTES, settings(issuer, key_rate=2)) as gate:
        statuses = [(await ask(gate, issuer.token(jti=str(n)))).status for n in range(3)]
        assert statuses == [200, 200, 429]
        assert (await ask(gate, issuer.token(sub="bob"))).status == 200


async def test_a_token_for_reading_changes_nothing(gate: Gated, issuer: Issuer) -> None:
    reads = bearer(issuer.token(scope="openid bilt:read"))
    assert (await gate.ask("GET", "/v1/who", reads)).status == 200
    refused = await gate.ask("POST", "/v1/who", {**reads, **JSON_TYPE}, [b"{}"])
    assert (refused.status, refused.json["code"]) == (403, "read_only_key")
    writes = bearer(issuer.token(scope="bilt:read bilt:write"))
    assert (await gate.ask("POST", "/v1/who", {**writes, **JSON_TYPE}, [b"{}"])).status == 200
    neither = await ask(gate, issuer.token(scope="openid"))
    assert (neither.status, neither.json["code"]) == (403, "insufficient_scope")
    assert 'error="insufficient_scope"' in neither.headers["www-authenticate"]


async def test_keys_are_good_beside_tokens(gate: Gated) -> None:
    assert (await ask(gate, await new_key(gate.site.access))).status == 200


# -- bad ones --------------------------------------------------------------------------------------


def unsigned(issuer: Issuer) -> str:
    parts = ({"alg": "none", "kid": "first", "typ": "JWT"}, issuer.claims())
    encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts]
    return b".".join([*encoded, b""]).decode()


def confused(issuer: Issuer) -> str:
    """Signed by anybody, with the public key as the secret of HS256."""
    parts = ({"alg": "HS256", "kid": "first", "typ": "JWT"}, issuer.claims())
    encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts]
    signed = b".".join(encoded)
    seal = hmac.new(issuer.public_pem(), signed, hashlib.sha256).digest()
    return b".".join([signed, base64.urlsafe_b64encode(seal).rstrip(b"=")]).decode()


def of_another(issuer: Issuer) -> str:
    other = Issuer()
    return jwt.encode(issuer.claims(), other.keys["first"], "RS256", headers={"kid": "first"})


BAD: dict[str, Callable[[Issuer], str]] = {
    "expired": lambda i: i.token(exp=int(time.time()) - 60),
    "for another audience": lambda i: i.token(aud="https://other.example"),
    "of another issuer": lambda i: i.token(iss="https://other.example"),
    "without an end": lambda i: i.token(exp=None),
    "without a subject": lambda i: i.token(sub=None),
    "without an audience": lambda i: i.token(aud=None),
    "not yet": lambda i: i.token(nbf=int(time.time()) + 120),
    "with an unknown key": lambda i: i.token(kid="unknown"),
    "signed by somebody else": of_another,
    "not signed": unsigned,
    "signed with the public key": confused,
    "no token": lambda _: "a.b.c",
    "cut": lambda i: i.token()[:-4],
}


@pytest.mark.parametrize("kind", BAD)
async def test_no_other_token_lets_in(gate: Gated, issuer: Issuer, kind: str) -> None:
    assert (await ask(gate, issuer.token())).status == 200
    found = await ask(gate, BAD[kind](issuer))
    assert (found.status, found.json["code"]) == (401, "unauthorized")
    assert 'error="invalid_token"' in found.headers["www-authenticate"]


async def test_a_secret_in_the_key_set_is_believed_by_nobody(gate: Gated, issuer: Issuer) -> None:
    secret = b"x" * 32
    shared = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    issuer.extra = [{"kty": "oct", "kid": "shared", "k": shared, "alg": "HS256"}]
    token = jwt.encode(issuer.claims(), secret, "HS256", headers={"kid": "shared"})
    assert (await ask(gate, token)).status == 401


async def test_what_is_no_key_in_the_key_set_does_not_spoil_the_others(
    gate: Gated, issuer: Issuer
) -> None:
    issuer.extra = [
        {"kty": ["RSA"], "kid": "a"},
        {"kty": "RSA", "kid": ["b"], "n": "_" * 344, "e": "AQAB"},
        {"kty": "RSA", "kid": "c", "n": "no number", "e": "AQAB"},
        {"kty": "EC", "kid": "d", "crv": "P-256", "x": "AQAB", "y": "AQAB"},
    ]
    assert (await ask(gate, issuer.token())).status == 200


async def test_made_up_tokens_are_guesses_and_expired_ones_are_not(
    place: Place, issuer: Issuer
) -> None:
    async with gated(place.config(), ROUTES, settings(issuer, failure_rate=2)) as gate:
        old = [await ask(gate, BAD["expired"](issuer)) for _ in range(4)]
        assert {each.status for each in old} == {401}
        forged = [await ask(gate, of_another(issuer)) for _ in range(4)]
        assert [each.status for each in forged] == [401, 401, 429, 429]


# -- the issuer's keys -----------------------------------------------------------------------------


async def test_keys_are_fetched_once_and_for_unknown_ones_once_a_minute(
    gate: Gated, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        await ask(gate, issuer.token())
        await ask(gate, issuer.token(kid=f"unknown {n}"))
    assert issuer.fetches == 1
    issuer.rotate("second")
    assert (await ask(gate, issuer.token())).status == 401
    assert issuer.fetches == 1
    monkeypatch.setattr(issuer_keys, "PAUSE_SECONDS", KEY_WAS_ASKED_AGAIN)
    assert (await ask(gate, issuer.token())).status == 200
    assert issuer.fetches == 2


async def test_a_key_that_the_issuer_takes_back_is_not_believed_any_more_and_ends_its_streams(
    gate: Gated, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, found = issuer.token(), Exchange()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: gate.ask("GET", "/v1/drip", bearer(token), exchange=found))
        await wait_until(lambda: bool(found.body), "the stream runs")
        issuer.rotate("second")
        monkeypatch.setattr(issuer_keys, "PAUSE_SECONDS", KEY_WAS_ASKED_AGAIN)
        monkeypatch.setattr(issuer_keys, "FRESH_SECONDS", 0.0)
        await wait_until(lambda: found.is_complete, "the stream has ended")
    assert (await ask(gate, token)).status == 401


async def test_while_the_issuer_is_away_its_keys_are_good_for_a_while_and_then_nobodys(
    gate: Gated, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await ask(gate, issuer.token())).status == 200
    issuer.is_up = False
    monkeypatch.setattr(issuer_keys, "PAUSE_SECONDS", KEY_WAS_ASKED_AGAIN)
    monkeypatch.setattr(issuer_keys, "FRESH_SECONDS", 0.0)
    assert (await ask(gate, issuer.token())).status == 200
    monkeypatch.setattr(issuer_keys, "STALE_SECONDS", 0.0)
    away = await ask(gate, issuer.token())
    assert (away.status, away.json["code"]) == (503, "issuer_unavailable")
    assert away.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    "metadata", [{"issuer": "https://other.example"}, {"jwks_uri": "http://keys.example/keys"}]
)
async def test_metadata_of_another_issuer_or_in_the_clear_is_not_followed(
    gate: Gated, issuer: Issuer, metadata: dict[str, str]
) -> None:
    issuer.metadata = metadata
    assert (await ask(gate, issuer.token())).status == 503
    assert issuer.fetches == 0


# -- what a client reads ---------------------------------------------------------------------------


async def test_a_client_without_a_token_is_led_to_the_issuer(place: Place, issuer: Issuer) -> None:
    public = settings(issuer, public_urls=("https://bilt.example",))
    async with gated(place.config(), ROUTES, public) as gate:
        gate.routes.extend(well_known.routes(gate.site))
        for path, resource in (("/mcp", "/mcp"), ("/v1/who", "")):
            asked = await gate.ask("GET", path)
            assert asked.status == 401
            url = f"https://bilt.example/.well-known/oauth-protected-resource{resource}"
            scope = 'scope="bilt:read bilt:write"'
            challenge = f'Bearer {scope}, resource_metadata="{url}"'
            assert asked.headers["www-authenticate"] == challenge
            told = await gate.ask("GET", url.removeprefix("https://bilt.example"))
            assert told.status == 200
            assert told.json["resource"] == f"https://bilt.example{resource}"
            assert told.json["authorization_servers"] == [issuer.url]
            assert told.json["scopes_supported"] == ["bilt:read", "bilt:write"]


async def test_a_server_without_an_issuer_has_no_such_page(place: Place) -> None:
    async with gated(place.config(), ROUTES) as gate:
        gate.routes.extend(well_known.routes(gate.site))
        asked = await gate.ask("GET", "/mcp")
        assert asked.headers["www-authenticate"] == "Bearer"
        found = await gate.ask("GET", "/.well-known/oauth-protected-resource")
        assert (found.status, found.json["code"]) == (404, "not_found")
        assert (await ask(gate, "a.b.c")).status == 401
