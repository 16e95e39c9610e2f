"""The gate, asked on every route that there is: size, Host, Origin, content type, credential."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from starlette.routing import Route

from bilt_mcp.server.http.app import all_routes
from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.server.http.site import Site
from bilt_mcp.server.http.surfaces import way_of

from .support.http import bearer, new_key, serving
from .support.places import Place, open_place

pytestmark = pytest.mark.anyio

MEGABYTE = 1_000_000
UNLIMITED = HttpSettings(
    key_rate=0, login_rate=0, failure_rate=0, origins=("https://pages.example",)
)
JSON_TYPE = {"Content-Type": "application/json"}
SECURITY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True)
class Case:
    """A method of a route."""

    method: str
    path: str

    @property
    def credential(self) -> str:
        return way_of(self.path).credential

    @property
    def surface(self) -> str:
        return way_of(self.path).surface


def every_route(site: Site) -> Iterator[Case]:
    """By what the application itself says; an id stands wherever one belongs."""
    for route in all_routes(site):
        assert isinstance(route, Route)
        path = "/".join(
            str(uuid4()) if part.startswith("{") else part for part in route.path.split("/")
        )
        for method in sorted(route.methods or {"GET", "POST", "DELETE"}):
            yield Case(method, path)
    yield Case("GET", "/nothing/here")
    yield Case("POST", "/nothing/here")


@dataclass
class Server:
    """A running server, a client of it, and good credentials."""

    listening: Listening
    client: httpx2.AsyncClient
    key: str
    read_only: str
    revoked: str
    cookie: str

    @property
    def cases(self) -> list[Case]:
        return list(every_route(self.listening.site))

    def credential(self, case: Case) -> dict[str, str]:
        """What lets this request in."""
        if case.credential == "cookie":
            return {"Cookie": f"session_id={self.cookie}"}
        return bearer(self.key)

    async def status(self, case: Case, headers: dict[str, str], **more: object) -> int:
        """Ask; the answer to a stream is not waited for."""
        request = self.client.build_request(case.method, case.path, headers=headers, **more)  # type: ignore[arg-type]
        answer = await self.client.send(request, stream=True)
        try:
            for name, value in SECURITY.items():
                assert answer.headers.get(name) == value, (case, name)
            assert answer.headers["x-request-id"], case
            assert "cache-control" in answer.headers, case
            return answer.status_code
        finally:
            await answer.aclose()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("gate")) as found:
        yield found


@pytest.fixture(scope="module")
async def server(place: Place) -> AsyncIterator[Server]:
    async with serving(place.config(), UNLIMITED) as listening:
        access = listening.site.access
        key = await new_key(access, "good")
        read_only = await new_key(access, "reads", read_only=True)
        revoked = await new_key(access, "gone")
        await access.revoke_key("gone")
        async with httpx2.AsyncClient(base_url=listening.url, timeout=30) as client:
            login = await client.post("/auth/login", json={"key": key})
            cookie = login.cookies["session_id"]
            client.cookies.clear()
            yield Server(listening, client, key, read_only, revoked, cookie)


# -- size ------------------------------------------------------------------------------------------


async def test_a_body_that_is_announced_as_50_mb_is_refused_on_every_route_before_it_comes(
    server: Server,
) -> None:
    header = f"Content-Length: {50 * MEGABYTE}\r\n"
    all_said = await asyncio.gather(
        *(raw(server, each, header, b"{" * 999) for each in server.cases)
    )
    for case, said in zip(server.cases, all_said, strict=True):
        assert said.startswith(b"HTTP/1.1 413 "), (case, said)


async def test_a_body_of_50_mb_without_a_length_is_never_kept_and_refused_wherever_it_would_be_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.server.http.body.LINGER_SECONDS", 60.0)  # on a busy machine

    async def megabytes(many: int) -> AsyncIterator[bytes]:
        for _ in range(many):
            yield b" " * MEGABYTE

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    all_of_it = {"/mcp", "/chat", "/health", "/auth/login"}
    for case in server.cases:
        headers = {**server.credential(case), **JSON_TYPE}
        body = megabytes(50 if case.path in all_of_it else 5)
        assert await server.status(case, headers, content=body) == 413, case
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 40, f"{grown:.0f} MiB more"


async def test_a_body_of_just_4_mib_is_read(server: Server) -> None:
    path = f"/v1/invocations/{uuid4()}/cancel"
    full = b" " * (4 * 1024 * 1024)
    for body, status in ((full, {400, 404}), (full + b" ", {413})):
        headers = {**bearer(server.key), **JSON_TYPE}
        answer = await server.client.post(path, content=body, headers=headers)
        assert answer.status_code in status


async def test_of_whom_nobody_knows_only_a_small_body_is_kept(server: Server) -> None:
    small = b'"' + b" " * 65_534 + b'"'
    for case in server.cases:
        if case.credential in ("bearer", "cookie"):
            continue
        for body in (small, small + b" "):
            answer = await server.client.request(
                case.method, case.path, content=body, headers=JSON_TYPE
            )
            assert (answer.status_code == 413) == (len(body) > 65_536), case


@pytest.mark.parametrize(
    "crowd",
    [b"[" + b"0," * 100_000 + b"0]", b"[" + b"[" * 99 + b"]" * 99 + b",[]" * 60_000 + b"]"],
    ids=["numbers", "lists"],
)
async def test_a_body_of_very_many_values_is_refused_before_anybody_reads_it(
    server: Server, crowd: bytes
) -> None:
    for case in server.cases:
        if case.credential in ("bearer", "cookie"):
            answer = await server.client.request(
                case.method,
                case.path,
                content=b'{"args": %b}' % crowd,
                headers={**server.credential(case), **JSON_TYPE},
            )
            assert answer.status_code == 400, case
            assert case.method == "HEAD" or "100000 values" in answer.text, case


@pytest.mark.parametrize(
    "text",
    [b"1,2;" * 100_000, rb"\"\"," * 100_000, rb"\\\"[" * 100_000],
    ids=["plain", "quoted", "escaped"],
)
async def test_what_is_in_a_text_are_no_values(server: Server, text: bytes) -> None:
    answer = await server.client.post(
        f"/v1/invocations/{uuid4()}/cancel",
        content=b'{"args": "%b"}' % text,
        headers={**bearer(server.key), **JSON_TYPE},
    )
    assert "values" not in answer.text
    assert "args" in answer.text


# -- names and origins -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost.evil.example:{port}"])
async def test_a_foreign_host_reaches_no_route(server: Server, host: str) -> None:
    port = str(urlsplit(server.listening.url).port)
    for case in server.cases:
        headers = {**server.credential(case), **JSON_TYPE, "Host": host.replace("{port}", port)}
        assert await server.status(case, headers) == 421, case


async def test_the_server_answers_to_all_its_own_names(server: Server) -> None:
    port = urlsplit(server.listening.url).port
    for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert await server.status(Case("GET", "/health/live"), {"Host": host}) == 200


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://127.0.0.1:1"])
async def test_a_page_of_a_foreign_origin_reaches_no_route(server: Server, origin: str) -> None:
    for case in server.cases:
        for method in {case.method, "OPTIONS"}:
            headers = {**server.credential(case), **JSON_TYPE, "Origin": origin}
            asked = replace(case, method=method)
            assert await server.status(asked, headers) == 403, asked


async def test_a_page_of_another_site_that_says_no_origin_does_not_reach_the_chat(
    server: Server,
) -> None:
    for case in server.cases:
        if case.surface == "chat":
            for site in ("cross-site", "same-site"):
                headers = {**server.credential(case), **JSON_TYPE, "Sec-Fetch-Site": site}
                assert await server.status(case, headers) == 403, case


async def test_a_page_that_may_call_is_told_so_and_can_read_the_answer(server: Server) -> None:
    asked = {
        "Origin": "https://pages.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    for case in server.cases:
        told = await server.client.options(case.path, headers=asked)
        assert told.status_code == 204, case
        assert told.headers["access-control-allow-origin"] == "https://pages.example"
        assert told.headers["access-control-allow-headers"] == "authorization, content-type"
        assert "POST" in told.headers["access-control-allow-methods"]
    answer = await server.client.get("/health/live", headers={"Origin": "https://pages.example"})
    assert answer.headers["access-control-allow-origin"] == "https://pages.example"
    assert answer.headers["vary"] == "Origin"
    plain = await server.client.get("/health/live")
    assert "access-control-allow-origin" not in plain.headers


# -- content types ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_a_body_that_a_form_could_send_reaches_no_route(server: Server, kind: str) -> None:
    for case in server.cases:
        if case.method == "POST":
            headers = {**server.credential(case), "Content-Type": kind}
            assert await server.status(case, headers, content=b"{}") == 415, case
            assert await server.status(case, headers, content=b"") == 415, case


async def test_a_post_without_a_body_needs_no_content_type(server: Server) -> None:
    answer = await server.client.post(
        f"/v1/invocations/{uuid4()}/cancel", headers=bearer(server.key)
    )
    assert answer.status_code == 404


# -- credentials -----------------------------------------------------------------------------------


async def test_without_a_good_credential_nothing_is_reached_and_nothing_is_told(
    server: Server,
) -> None:
    garbage = ["bilt_live_" + "A" * 43, "x", "a b", "." * 9000, server.revoked]
    for case in server.cases:
        if case.credential == "bearer":
            wrong: list[dict[str, str]] = [
                {},
                {"Authorization": "Basic eDp5"},
                {"Authorization": "Bearer"},
            ]
            wrong += [{"Authorization": f"Bearer {key}"} for key in garbage]
            wrong += [{"Cookie": f"session_id={server.cookie}"}]
        elif case.credential == "cookie":
            wrong = [{}, {"Cookie": "session_id=x"}, {"Cookie": "session_id="}, bearer(server.key)]
            wrong += [{"Cookie": f"session_id={server.cookie}; session_id=planted"}]
        else:
            continue
        bodies = set[str]()
        for headers in wrong:
            answer = await server.client.request(
                case.method, case.path, headers={**headers, **JSON_TYPE}
            )
            assert answer.status_code == 401, (case, headers)
            if case.credential == "bearer":
                assert answer.headers["www-authenticate"].startswith("Bearer"), case
            assert "x-ratelimit-limit" not in answer.headers
            bodies.add(f"{answer.text}".replace(answer.headers["x-request-id"], ""))
        assert len(bodies) <= 3 or case.method == "HEAD", bodies


async def test_with_a_good_credential_every_route_is_reached(server: Server) -> None:
    for case in server.cases:
        if case.path == "/auth/logout":
            continue  # it would be the last one
        status = await server.status(case, {**server.credential(case), **JSON_TYPE})
        assert status not in (401, 403, 413, 415, 421, 429, 500, 503), (case, status)


async def test_a_key_for_reading_changes_nothing_over_rest(server: Server) -> None:
    for case in server.cases:
        if case.path.startswith("/v1/") and case.method == "POST":
            headers = {**bearer(server.read_only), **JSON_TYPE}
            status = await server.status(case, headers, content=b"{}")
            assert (status == 403) == (not case.path.endswith("/wait")), case


async def raw(server: Server, case: Case, header: str, body: bytes) -> bytes:
    """What the server says to a request by hand, and that it then hangs up."""
    place = urlsplit(server.listening.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"{case.method} {case.path} HTTP/1.1\r\nHost: {place.netloc}\r\n{header}"
    for name, value in {**server.credential(case), **JSON_TYPE}.items():
        head += f"{name}: {value}\r\n"
    writer.write(head.encode() + b"\r\n" + body)
    said = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return said
