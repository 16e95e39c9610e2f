"""Failures at `/mcp` in the shape that MCP clients read: of any other body they keep the status and lose the words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
SERVER_ERROR = -32000
"""JSON-RPC leaves the range that begins here to servers."""


def rpc_error(
    status: int,
    code: int,
    message: str,
    *,
    asked: str | int | None = None,
    data: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer with this status of HTTP. `asked` is the id of the request, where it could be read."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = dict(data)
    return rpc_answer(asked, status, headers, error=error)


def rpc_answer(
    asked: str | int | None,
    status: int,
    headers: Mapping[str, str] | None = None,
    **outcome: Mapping[str, Any],
) -> Response:
    """A message of JSON-RPC as an answer; `outcome` is its `result`, or its `error`."""
    # In ASCII: half of a character, which an id may be, cannot be encoded otherwise.
    body = json.dumps({"jsonrpc": "2.0", "id": asked, **outcome}, separators=(",", ":"))
    return Response(body, status, dict(headers or {}), media_type="application/json")
