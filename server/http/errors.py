"""Failures over HTTP: one exception for handlers and the gate, and the body that each system documents for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

from starlette.responses import JSONResponse, Response

from bilt_mcp.state import (
    BiltError,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidWorkflowFile,
    NothingToConfirm,
    NoWorkflowConfigured,
    ProjectNotFound,
    RateLimitExceeded,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    WorkflowAlreadyActive,
    WorkflowNotFound,
)

from .rpc_error import SERVER_ERROR, rpc_error

log = logging.getLogger("bilt_mcp.server")

Surface = Literal["mcp", "rest", "chat"]

_STATUS: Mapping[type[BiltError], tuple[int, str]] = {
    InvalidArguments: (400, "invalid_request"),
    SessionNotFound: (404, "run_not_found"),
    ProjectNotFound: (404, "runtime_not_found"),
    WorkflowNotFound: (404, "invocation_not_found"),
    NothingToConfirm: (404, "no_pending_action"),
    WorkflowAlreadyActive: (409, "already_active"),
    IdempotencyKeyReused: (409, "idempotency_key_reused"),
    NoWorkflowConfigured: (409, "no_workflow_configured"),
    InvalidWorkflowFile: (409, "invalid_workflow_file"),
    RateLimitExceeded: (429, "rate_limited"),
    StoreFull: (503, "store_full"),
    StoreUnavailable: (503, "store_unavailable"),
}
_REASONS = {401: "authentication", 403: "authorization", 429: "rate_limit"}


class Refused(Exception):
    """A request that gets an error for an answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`code` is for programs, `message` says what happened, `hint` which request comes next."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details
        self.headers = headers


def refused(error: BiltError) -> Refused:
    """A failure of the core as one of HTTP."""
    kinds = (kind for kind in type(error).__mro__ if kind in _STATUS)
    status, code = _STATUS[next(kinds)]
    details = {key: value for key, value in error.details.items() if key != "message"}
    return Refused(status, code, error.message, details=details or None)


def response(refused: Refused, surface: Surface, request_id: str) -> Response:
    """The answer, in the shape of the system that was asked (CONTRACT sections 3 and 4)."""
    if surface == "chat":
        body: dict[str, Any] = {"error": refused.code, "message": refused.message}
        return JSONResponse(body, refused.status, dict(refused.headers or {}))
    about: dict[str, Any] = {"code": refused.code, "requestId": request_id}
    if refused.details is not None:
        about["details"] = refused.details
    server = "server" if refused.status >= 500 else "request"
    about["reasonClass"] = _REASONS.get(refused.status, server)
    if surface == "mcp":
        told = refused.message
        if refused.hint is not None:
            told = f"{told.removesuffix('.')}. {refused.hint}"
        headers = refused.headers
        return rpc_error(refused.status, SERVER_ERROR, told, data=about, headers=headers)
    body = {"error": refused.message, **about}
    if refused.hint is not None:
        body["hint"] = refused.hint
    return JSONResponse(body, refused.status, dict(refused.headers or {}))


def crashed(error: BaseException) -> Refused:
    """What a caller is told of a failure of ours: nothing of it, but the id under which the log has it."""
    error_id = str(uuid4())
    log.error("a request failed unexpectedly, error_id %s", error_id, exc_info=error)
    told = f"bilt-mcp failed; the log has the cause under error_id {error_id}."
    return Refused(500, "internal_error", told, details={"error_id": error_id})
