"""The OpenAPI document, beside what is drawn from it: that it is one, its examples, and the headers that it names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import httpx2
import pytest
from schemathesis.openapi import from_dict

from bilt_mcp.server.http.app import OPERATIONS
from bilt_mcp.server.http.openapi import document
from bilt_mcp.server.http.settings import HttpSettings

from .support.http import bearer, key_in, serving
from .support.places import Place
from .support.places import place as place  # a fixture

pytestmark = pytest.mark.anyio

validator: Any = import_module("jsonschema").Draft202012Validator
DOCUMENT = document(OPERATIONS)
OFFERED = {name.lower() for name in DOCUMENT["components"]["headers"]}
EXAMPLES = {
    operation.id: (operation.path, operation.method)
    for operation in OPERATIONS
    if operation.example is not None
}
WORKFLOW = '[[step]]\nname = "build"\nrun = ["true"]\n'


def test_it_is_an_openapi_document() -> None:
    schema: Any = from_dict(DOCUMENT)
    schema.validate()


@pytest.mark.parametrize("operation", EXAMPLES)
def test_an_example_is_a_body_that_could_be_sent(operation: str) -> None:
    path, method = EXAMPLES[operation]
    body = DOCUMENT["paths"][path][method]["requestBody"]["content"]["application/json"]
    schema = {**body["schema"], "components": DOCUMENT["components"]}
    validator(schema).validate(body["example"])


def test_every_body_that_needs_members_has_an_example() -> None:
    needed = {operation.id for operation in OPERATIONS if operation.request_required}
    with_body = {operation.id for operation in OPERATIONS if operation.request is not None}
    assert needed & with_body <= set(EXAMPLES)


async def test_answers_come_with_the_headers_that_it_names_and_no_other_of_them(
    place: Place,
) -> None:
    place.workflow(WORKFLOW)
    key = await key_in(place.config())
    four = HttpSettings(key_rate=4)
    async with (
        serving(place.config(), four) as served,
        httpx2.AsyncClient(base_url=served.url, headers=bearer(key)) as http,
    ):
        _named(await http.get("/v1/spaces", headers=bearer("bilt_live_x")), "/v1/spaces", 401)
        answer = await http.post("/auth/login", json={"key": key})
        _named(answer, "/auth/login", 200)
        answer = await http.get("/v1/spaces")
        space = _named(answer, "/v1/spaces", 200)["data"][0]["id"]
        answer = await http.get(f"/v1/spaces/{space}/runtimes")
        runtime = answer.json()["data"][0]["id"]
        made = await http.post(
            f"/v1/spaces/{space}/runtimes/{runtime}/invocations",
            json={"runtimeId": runtime, "steps": [{"call": "build"}]},
        )
        _named(made, "/v1/spaces/{id}/runtimes/{runtimeId}/invocations", 202)
        assert made.headers["location"] == f"/v1/invocations/{made.json()['id']}"
        _named(await http.get(made.headers["location"]), "/v1/invocations/{id}", 429)
        _named(await http.get("/chat/stream"), "/chat/stream", 400)
        await http.post("/auth/logout")
        _named(await http.get("/auth/session"), "/auth/session", 401)
        _named(await http.get("/health"), "/health", 200)


def _named(answer: httpx2.Response, path: str, status: int) -> Any:
    """Compare its headers with those that the document has for it; returns its body."""
    assert answer.status_code == status, answer.text
    operation = DOCUMENT["paths"][path][answer.request.method.lower()]
    told = {name.lower() for name in operation["responses"][str(status)]["headers"]}
    assert {name for name in answer.headers if name in OFFERED} == told
    return answer.json()
