"""What a client of MCP is told whose request cannot be taken: what is wrong with it, and what to send instead.

Most clients show these words to whoever uses them, often a model.
"""

from __future__ import annotations

from mcp.server.streamable_http import check_accept_headers
from mcp.shared.inbound import unsupported_protocol_version_rejection
from mcp_types import HEADER_MISMATCH
from starlette.requests import Request
from starlette.responses import Response

from .rpc_body import Message
from .rpc_error import INVALID_REQUEST, rpc_error


def unfit(request: Request) -> Response | None:
    """Why a request of the era without sessions is not even read; None when it is."""
    if request.method != "POST":
        return not_allowed("POST")
    if not all(check_accept_headers(request)):
        told = "Send Accept: application/json, text/event-stream. An answer may be either."
        return rpc_error(406, INVALID_REQUEST, told)
    return None


def unknown_version(version: str, asked: Message | None) -> Response | None:
    """Why a request of a version that nobody serves is refused; None when it is served without sessions.

    One that says its version in its body, too, is looked at by the SDK, which compares them first.
    """
    rejected = unsupported_protocol_version_rejection(version)
    if rejected is None or (asked is not None and asked.is_stateless):
        return None
    number = None if asked is None else asked.id
    return rpc_error(400, rejected.code, rejected.message, asked=number, data=rejected.data)


def not_allowed(*methods: str) -> Response:
    """Only these methods of HTTP do something here."""
    allowed = ", ".join(methods)
    told = f"Only {allowed} can be used here."
    return rpc_error(405, INVALID_REQUEST, told, headers={"Allow": allowed})


def no_session(asked: Message | None) -> Response:
    """A request that belongs to a session, and names none."""
    told = (
        "Bad Request: Missing session ID. Begin with initialize, and send the Mcp-Session-Id of its answer with "
        "every request. From 2026-07-28 on, send MCP-Protocol-Version instead."
    )
    number = None if asked is None else asked.id
    return rpc_error(400, INVALID_REQUEST, told, asked=number)


def version_missing(asked: Message) -> Response:
    """A request of the era without sessions whose headers do not say so."""
    told = (
        "Header mismatch: MCP-Protocol-Version is missing, and the request's _meta has a version."
    )
    return rpc_error(400, HEADER_MISMATCH, told, asked=asked.id)


def session_is_over() -> Response:
    """A session that nobody has, or nobody has any more: the same to all who ask."""
    # Not only "Session not found": the tools mean another kind of session by that.
    told = (
        "This MCP connection's session is over: the server was started again, or nobody used it for long. Connect "
        "again (initialize, without Mcp-Session-Id). No workflow is affected, and session_id values stay good."
    )
    return rpc_error(404, INVALID_REQUEST, told)


def id_in_use(asked: Message) -> Response:
    """A request with the id of one that is still being answered."""
    told = "A request with this id is still being answered in this session. Use each id once."
    return rpc_error(400, INVALID_REQUEST, told, asked=asked.id)


def another_stream() -> Response:
    """A stream in whose place another one has come, before it began."""
    told = "Another stream of this session was opened, and there is one at a time."
    return rpc_error(409, INVALID_REQUEST, told)
