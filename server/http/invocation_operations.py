"""What the routes of spaces and invocations take and answer, for the OpenAPI document."""

from __future__ import annotations

from bilt_mcp.state import MAX_KEY_CHARS, InvocationStatus

from .error_models import RestError
from .invocation_models import Invocation, InvocationPage, RuntimePage, SpacePage
from .invocation_request import CancelRequest, InvocationRequest, WaitRequest
from .operations import Answer, Operation, Parameter, path_id
from .parsing import DEFAULT_LISTED, MOST_LISTED

_TAG = "invocations"
_PAGE = (
    Parameter("cursor", {"type": "string"}, "The nextCursor of the page before."),
    Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": DEFAULT_LISTED},
        "How many.",
    ),
)
_STATUS = Parameter(
    "status",
    {"type": "array", "items": {"type": "string", "enum": [s.value for s in InvocationStatus]}},
    "Only those in one of these.",
)
_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS},
    "Another way to send idempotencyKey.",
    "header",
)
_EXAMPLE = {
    "runtimeId": "550e8400-e29b-41d4-a716-446655440000",
    "steps": [
        {"call": "build", "bind": "b", "args": ["--release"]},
        {"call": "deploy", "ref": "b", "options": {"dryRun": True, "timeoutMs": 60_000}},
    ],
    "mode": "fail-fast",
    "idempotencyKey": "release-42",
}
_SPACE = path_id("id", "A space.")
_RUNTIME = path_id("runtimeId", "A runtime of it.")
_INVOCATION = path_id("id", "An invocation.")
_NOW = Answer("The invocation as it is now.", Invocation)
_GONE = Answer("There is no such thing for this caller.", RestError)
_CONFLICT = Answer("The idempotencyKey came before with another request.", RestError)

OPERATIONS = (
    Operation(
        method="get",
        path="/v1/spaces",
        id="listSpaces",
        summary="The caller's spaces",
        tag=_TAG,
        parameters=_PAGE,
        answers={200: Answer("One: a key belongs to one account.", SpacePage)},
    ),
    Operation(
        method="get",
        path="/v1/spaces/{id}/runtimes",
        id="listRuntimes",
        summary="The runtimes of a space, with the calls that each offers",
        tag=_TAG,
        parameters=(_SPACE, *_PAGE),
        answers={200: Answer("Newest first.", RuntimePage), 404: _GONE},
    ),
    Operation(
        method="post",
        path="/v1/spaces/{id}/runtimes/{runtimeId}/invocations",
        id="createInvocation",
        summary="Run steps of a runtime",
        tag=_TAG,
        parameters=(_SPACE, _RUNTIME, _KEY),
        request=InvocationRequest,
        example=_EXAMPLE,
        answers={
            202: Answer("Accepted and durable.", Invocation, headers=("Location",)),
            404: _GONE,
            409: _CONFLICT,
        },
    ),
    Operation(
        method="get",
        path="/v1/invocations/{id}",
        id="getInvocation",
        summary="An invocation",
        tag=_TAG,
        parameters=(_INVOCATION,),
        answers={200: _NOW, 404: _GONE},
    ),
    Operation(
        method="post",
        path="/v1/invocations/{id}/wait",
        id="waitForInvocation",
        summary="An invocation when it is over, or when the time is up",
        tag=_TAG,
        parameters=(_INVOCATION,),
        request=WaitRequest,
        request_required=False,
        example={"timeoutMs": 30_000},
        answers={200: _NOW, 404: _GONE},
    ),
    Operation(
        method="post",
        path="/v1/invocations/{id}/cancel",
        id="cancelInvocation",
        summary="Stop an invocation for good; one that is over stays as it is",
        tag=_TAG,
        parameters=(_INVOCATION,),
        request=CancelRequest,
        request_required=False,
        answers={
            200: Answer("Cancelled, verified; or cancelling after 10 s.", Invocation),
            404: _GONE,
        },
    ),
    Operation(
        method="get",
        path="/v1/runs/{runId}/invocations",
        id="listInvocations",
        summary="The invocations of a run",
        tag=_TAG,
        parameters=(path_id("runId", "A run."), _STATUS, *_PAGE),
        answers={200: Answer("Newest first.", InvocationPage), 404: _GONE},
    ),
)
