"""Tenants: every tool, resource and route, for what is one's own, another's, nobody's and malformed; and for every key
that is none.

The lists come from the server itself, so what is added without a case here fails.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from bilt_mcp.server.http.app import OPERATIONS
from bilt_mcp.server.http.chat_models import MessageRequest
from bilt_mcp.server.http.operations import Operation
from bilt_mcp.state import Account, StoreLocation, digest_of

from .support.http import new_key
from .support.places import open_place
from .support.tenants import World, world_at

pytestmark = pytest.mark.anyio

Json = dict[str, Any]

KNOWN = "own"
UNKNOWN = ("foreign", "other project", "nobody's")
MALFORMED = ("not-a-uuid", "../../etc/passwd", "' OR 1=1 --", "\x00", "")
IDS = ("session_id", "project_id", "workflow_id", "action_id")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """One for all tests here: they change nothing, or what is theirs alone."""
    with open_place(tmp_path_factory.mktemp("tenants")) as place:
        async with world_at(place) as world:
            yield world


ARGUMENTS: Mapping[str, Json] = {
    "bilt_send_message": {"message": "build"},
    "bilt_create_project": {"name": "made"},
    "bilt_list_projects": {},
}


async def _called(client: Client, tool: str, arguments: Json) -> tuple[bool, str]:
    found = await client.call_tool(tool, arguments)
    told = json.dumps(found.structured_content, sort_keys=True)
    for name in set(IDS) & set(arguments):
        told = told.replace(
            str(arguments[name]), name
        )  # whose it is may not be told, what was asked may
    return bool(found.is_error), told


@pytest.mark.parametrize("tenant", ["owner", "limited"])
async def test_to_every_tool_what_is_anothers_is_as_unknown_as_what_is_nobodys(
    world: World, tenant: str
) -> None:
    cases = [case for case in UNKNOWN if tenant == "limited" or case != "other project"]
    before = await _revisions(world)
    async with world.http(tenant) as http, _mcp(world, http) as client:
        tools = (await client.list_tools()).tools
        assert len(tools) >= 11
        tried = 0
        for tool in tools:
            kinds = [kind for kind in IDS if kind in tool.input_schema["properties"]]
            assert kinds or tool.name in ARGUMENTS, "a new tool without ids: is it anybody's?"
            for kind in kinds:
                answers = {
                    case: await _called(
                        client, tool.name, _arguments(world, tool.name, kinds, kind, case)
                    )
                    for case in cases
                }
                tried += 1
                assert len(set(answers.values())) == 1, (tool.name, kind, answers)
                wrong, told = next(iter(answers.values()))
                assert wrong, (tool.name, kind, told)
                for bad in MALFORMED[:-1]:
                    given = _arguments(world, tool.name, kinds, kind, KNOWN) | {kind: bad}
                    wrong, told = await _called(client, tool.name, given)
                    assert wrong
                    assert json.loads(told)["error"] == "Invalid arguments", (tool.name, bad)
        assert tried >= 11
    assert await _revisions(world) == before


def _arguments(world: World, tool: str, kinds: list[str], kind: str, case: str) -> Json:
    own = {name: world.id_of(KNOWN, name) for name in kinds if name != kind}
    if kind == "project_id":
        own.pop("session_id", None)  # either names the session
    own.pop("workflow_id", None)
    if kind == "session_id":
        own.pop("project_id", None)
    return {**ARGUMENTS.get(tool, {}), **own, kind: world.id_of(case, kind)}


async def _revisions(world: World) -> list[object]:
    found: list[object] = []
    for case, account in (("foreign", "others"), ("other project", "local")):
        store = await world.site.stores.get(StoreLocation.of(world.site.config.store))
        session = await store.session(account, world.things[case].session_id)
        found.append((session.revision, session.status, await store.audit(account, session.id)))
    return found


def _mcp(world: World, http: httpx2.AsyncClient) -> Client:
    return Client(streamable_http_client(f"{world.url}/mcp", http_client=http))


async def test_every_resource_of_anothers_is_as_unknown_as_one_of_nobodys(world: World) -> None:
    async with world.http("limited") as http, _mcp(world, http) as client:
        templates = (await client.list_resource_templates()).resource_templates
        assert len(templates) >= 5
        for template in templates:
            pattern = template.uri_template.split("{?")[0].replace("{+path}", "left.txt")

            def filled(case: str, pattern: str = pattern) -> str:
                for kind in ("session_id", "workflow_id"):
                    pattern = pattern.replace(f"{{{kind}}}", world.id_of(case, kind))
                return pattern.replace("{step}", "build")

            assert (await client.read_resource(filled(KNOWN))).contents
            told: set[str] = set()
            for case in UNKNOWN:
                uri = filled(case)
                with pytest.raises(MCPError) as refused:
                    await client.read_resource(uri)
                error = refused.value.error
                told.add(str((error.code, error.message, error.data)).replace(uri, "URI"))
            assert len(told) == 1, told


def _filled(operation: Operation, world: World, case: str) -> tuple[str, Json, Json]:
    """The path, the query and the body of a request that is well-formed, about the ids of a case."""
    path = operation.path
    ids = {"invocations": "workflow_id", "runs": "session_id", "spaces": "space_id"}
    kind = next((kind for part, kind in ids.items() if f"/{part}/{{" in path), "")
    here = {"id": kind, "runId": "session_id", "runtimeId": "project_id"}
    if "{runtimeId}" in path:
        path = path.replace("{id}", world.things[KNOWN].space_id)
    for name, of in here.items():
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", world.id_of(case, of))
    thread = {"thread_id": world.id_of(case, "session_id")}
    query = thread if any(p.name == "thread_id" for p in operation.parameters) else {}
    body: Json = {}
    if operation.id == "invoke" or (path.endswith("/invocations") and operation.method == "post"):
        body = {"runtimeId": path.split("/")[-2], "steps": [{"call": "build"}]}
    elif operation.path.startswith("/chat") and operation.method == "post":
        body = thread | ({"user_message": "build"} if operation.request is MessageRequest else {})
    return path, query, body


async def _asked(
    http: httpx2.AsyncClient, operation: Operation, path: str, query: Json, body: Json
) -> httpx2.Response:
    if operation.method == "get":
        async with http.stream("GET", path, params=query) as answer:
            if "event-stream" not in answer.headers.get("content-type", ""):
                await answer.aread()
            return answer
    return await http.post(path, params=query, json=body)


GUARDED = [
    operation for operation in OPERATIONS if operation.credential and not operation.open_here
]
ABOUT = [
    operation
    for operation in GUARDED
    if "{" in operation.path or operation.path.startswith("/chat")
]


def named(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


async def test_to_every_route_what_is_anothers_is_as_unknown_as_what_is_nobodys(
    world: World,
) -> None:
    assert len(ABOUT) >= 11
    before = await _revisions(world)
    bearing, going = world.http("limited"), world.logged_in("limited")
    async with bearing as by_key, going as by_cookie:
        for operation in ABOUT:
            http = by_key if operation.credential == "bearer" else by_cookie
            told: set[tuple[int, str]] = set()
            for case in UNKNOWN:
                if operation.id == "listRuntimes" and case == "other project":
                    continue  # one's own space has it; what it lists is looked at below
                path, query, body = _filled(operation, world, case)
                answer = await _asked(http, operation, path, query, body)
                text = answer.text.replace(answer.headers["x-request-id"], "")
                told.add((answer.status_code, text))
            assert len(told) == 1, (named(operation), told)
            assert next(iter(told))[0] == 404, (named(operation), told)
        listed = (await by_key.get(f"/v1/spaces/{world.things[KNOWN].space_id}/runtimes")).json()
        assert [runtime["id"] for runtime in listed["data"]] == [world.things[KNOWN].project_id]
    assert await _revisions(world) == before


async def test_every_malformed_id_is_answered_in_words(world: World) -> None:
    bearing, going = world.http(), world.logged_in("owner")
    async with bearing as by_key, going as by_cookie:
        for operation in ABOUT:
            http = by_key if operation.credential == "bearer" else by_cookie
            path, query, body = _filled(operation, world, KNOWN)
            for bad in MALFORMED:
                shown = path
                for part in path.split("/"):
                    if len(part) == 36:
                        shown = shown.replace(part, httpx2.QueryParams({"x": bad}).__str__()[2:])
                about = {"thread_id": bad}
                given = query | about if query else {}
                sent = body | about if "thread_id" in body else body
                answer = await _asked(http, operation, shown, given, sent)
                assert answer.status_code in (400, 404, 405), (named(operation), bad, answer.text)
                assert answer.json()["error"]


@pytest.mark.parametrize("credential", ["none", "garbage", "random", "revoked", "cookie for key"])
async def test_no_route_answers_who_has_no_good_key(world: World, credential: str) -> None:
    secret = {
        "none": None,
        "garbage": "Bearer x",
        "random": f"Bearer bilt_live_{'A' * 43}",
        "revoked": f"Bearer {world.keys['revoked']}",
        "cookie for key": "Basic b3duZXI6b3duZXI=",
    }[credential]
    headers = {} if secret is None else {"Authorization": secret}
    cookie = {"Cookie": f"session_id={(secret or '').removeprefix('Bearer ')}"} if secret else {}
    async with httpx2.AsyncClient(base_url=world.url, timeout=60) as http:
        for operation in GUARDED:
            path, query, body = _filled(operation, world, KNOWN)
            http.headers = httpx2.Headers(headers if operation.credential == "bearer" else cookie)
            answer = await _asked(http, operation, path, query, body)
            assert answer.status_code == 401, (named(operation), answer.text)
            if operation.credential == "bearer":
                assert answer.headers["www-authenticate"].startswith("Bearer")
        http.headers = httpx2.Headers(headers | {"Accept": "application/json, text/event-stream"})
        answer = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_for_one_system_opens_no_other(world: World) -> None:
    """A bearer is no cookie, so that no page can use it; a cookie is no bearer."""
    async with world.http() as bearing, world.logged_in("owner") as going:
        assert (await bearing.get("/auth/session")).status_code == 401
        assert (await going.get("/v1/spaces")).status_code == 401


async def test_a_read_only_key_reads_what_is_its_own_and_changes_nothing(world: World) -> None:
    reading = {
        "listSpaces",
        "listRuntimes",
        "getInvocation",
        "waitForInvocation",
        "listInvocations",
    }
    reading |= {"getLogin", "followThread"}
    store = await world.site.stores.get(StoreLocation.of(world.site.config.store))
    before = await store.session("local", world.things[KNOWN].session_id)
    bearing, going = world.http("reader"), world.logged_in("reader")
    seen: set[str] = set()
    async with bearing as by_key, going as by_cookie:
        for operation in GUARDED:
            if operation.id == "logout":
                continue
            http = by_key if operation.credential == "bearer" else by_cookie
            path, query, body = _filled(operation, world, KNOWN)
            answer = await _asked(http, operation, path, query, body)
            if answer.status_code == 403:
                continue
            seen.add(operation.id)
            assert answer.status_code == 200, (named(operation), answer.text)
            assert operation.method == "get" or path.endswith("/wait")
        async with _mcp(world, by_key) as client:
            for tool in (await client.list_tools()).tools:
                assert tool.annotations is not None
                assert tool.annotations.read_only_hint
    assert seen == reading
    assert await store.session("local", world.things[KNOWN].session_id) == before


async def test_a_key_that_is_revoked_ends_what_it_had_begun(world: World) -> None:
    key = await new_key(world.site.access, "short", "local")
    store = await world.site.stores.get(StoreLocation.of(world.site.config.store))
    session = await store.new_session("local", world.things[KNOWN].project_id)
    http = httpx2.AsyncClient(base_url=world.url, timeout=60)
    async with http:
        assert (await http.post("/auth/login", json={"key": key})).status_code == 200
        query = {"thread_id": session.id}
        with anyio.fail_after(20):
            async with http.stream("GET", "/chat/stream", params=query) as answer:
                assert answer.status_code == 200
                await world.site.access.revoke_key("short")
                async for _ in answer.aiter_bytes():
                    pass
        assert (await http.get("/auth/session")).status_code == 401
    assert await world.site.access.admit(digest_of(key), 0) is None


async def test_no_account_is_told_of_anothers_projects(world: World) -> None:
    assert Account("others") == "others"
    async with world.http("stranger") as http, _mcp(world, http) as client:
        found = await client.call_tool("bilt_list_projects", {})
        text = json.dumps(found.structured_content)
        assert world.things["foreign"].project_id in text
        for case in (KNOWN, "other project"):
            assert world.things[case].project_id not in text
        made = await client.call_tool("bilt_create_project", {"name": "project"})
        # The owner has a project of this name; that is nobody else's business.
        assert not made.is_error, made.structured_content
