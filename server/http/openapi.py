"""`GET /openapi.json`: the document that is made of the same models as requests are checked with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import anyio.to_thread
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bilt_mcp.state import VERSION

from .error_models import ChatError, RestError
from .operations import EVENTS, JSON, Answer, Operation

_REF = "#/components/schemas/{model}"
_EVENT = {
    "description": "One event.",
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Where to go on: Last-Event-ID."},
        "event": {"type": "string"},
        "data": {"type": "string", "description": "JSON: event_type, data, timestamp."},
        "retry": {"type": "integer"},
    },
}
_GATE = {
    400: "The request is not one of this route.",
    401: "No credential, or not one that is good.",
    403: "The credential, or the page that asks, may not do this.",
    408: "The body did not arrive in time.",
    413: "The body has more than 4 MiB, or than 64 KiB where no credential is needed.",
    415: "The body is not JSON.",
    421: "This is not the host that was asked for.",
    429: "Too many requests in the last 60 seconds; Retry-After says when to go on.",
    500: "A failure of the server; its log has the cause under the id in the message.",
    503: "The store cannot be used now, or the server is stopping.",
}
_HEADERS = {
    "X-Request-Id": ("string", "Names this request, in the server's log too."),
    "X-RateLimit-Limit": ("integer", "Requests that are allowed in any 60 seconds."),
    "X-RateLimit-Remaining": ("integer", "How many of them are left."),
    "X-RateLimit-Reset": ("integer", "When there is room for more, in seconds since 1970."),
    "Retry-After": ("integer", "Seconds after which to try again."),
    "WWW-Authenticate": ("string", "How to say who asks."),
    "Location": ("string", "The path of what was made."),
    "Set-Cookie": ("string", "session_id: HttpOnly, SameSite=Strict."),
}
_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_UNCOUNTED = (401, 413, 415, 421)


def routes(operations: Sequence[Operation]) -> list[BaseRoute]:
    """The route of the document."""
    made: list[dict[str, Any]] = []

    async def openapi(_: Request) -> Response:
        # When somebody asks, and in a thread: it takes longer than the rest of the server's start.
        if not made:
            made.append(await anyio.to_thread.run_sync(document, operations))
        return JSONResponse(made[0])

    return [Route("/openapi.json", openapi, methods=["GET"])]


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """OpenAPI 3.1 for these operations."""
    refs, schemas = _schemas(operations)
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bilt-mcp",
            "version": VERSION,
            "description": "Long build and deploy workflows that can really be stopped: invocations, and a chat "
            "with confirmations. Agents use the same over MCP at /mcp.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": _headers(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "session_id"},
            },
        },
    }


_Refs = dict[tuple[object, JsonSchemaMode], dict[str, Any]]


def _schemas(operations: Iterable[Operation]) -> tuple[_Refs, dict[str, Any]]:
    used: dict[tuple[Any, JsonSchemaMode], None] = {
        (RestError, "serialization"): None,
        (ChatError, "serialization"): None,
    }
    for operation in operations:
        if operation.request is not None:
            used[operation.request, "validation"] = None
        for answer in operation.answers.values():
            if answer.model is not None:
                used[answer.model, "serialization"] = None
    wanted: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = [
        (model, mode, TypeAdapter(model)) for model, mode in used
    ]
    refs, definitions = TypeAdapter.json_schemas(wanted, ref_template=_REF)
    return {(model, mode): refs[model, mode] for model, mode in used}, definitions["$defs"]


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    found: list[dict[str, list[str]]] = []
    if operation.open_here:
        found.append({})
    if operation.credential is not None:
        found.append({operation.credential: []})
    return found


def _headers() -> dict[str, Any]:
    # Who has no limit is not told of one.
    return {
        name: {
            "description": description,
            "schema": {"type": kind},
            "required": name not in _LIMIT,
        }
        for name, (kind, description) in _HEADERS.items()
    }


def _headers_of(operation: Operation, status: int, answer: Answer) -> Iterable[str]:
    yield "X-Request-Id"
    yield from answer.headers
    if operation.credential is not None and status not in _UNCOUNTED:
        yield from _LIMIT
    if status == 401 and operation.credential == "bearer":
        yield "WWW-Authenticate"
    if status == 429:
        yield "Retry-After"


def _described(operation: Operation, refs: _Refs) -> dict[str, Any]:
    error = ChatError if operation.tag in ("chat", "login") else RestError
    told: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {},
        "security": _security(operation),
    }
    if operation.parameters:
        told["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.required,
                "description": parameter.description,
                "schema": dict(parameter.schema),
            }
            for parameter in operation.parameters
        ]
    if operation.request is not None:
        content: dict[str, Any] = {"schema": refs[operation.request, "validation"]}
        if operation.example is not None:
            content["example"] = operation.example
        told["requestBody"] = {
            "required": operation.request_required,
            "content": {JSON: content},
        }
    answers = dict(operation.answers)
    for status, description in _GATE.items():
        answers.setdefault(status, Answer(description, error))
    for status, answer in sorted(answers.items()):
        response: dict[str, Any] = {
            "description": answer.description,
            "headers": {
                name: {"$ref": f"#/components/headers/{name}"}
                for name in _headers_of(operation, status, answer)
            },
        }
        if answer.model is not None:
            response["content"] = {answer.media: {"schema": refs[answer.model, "serialization"]}}
        elif answer.media == EVENTS:
            response["content"] = {EVENTS: {"schema": _EVENT}}
        elif answer.media != JSON:
            response["content"] = {answer.media: {"schema": {"type": "string"}}}
        told["responses"][str(status)] = response
    return told
