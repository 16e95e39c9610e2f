"""What MCP clients are told that ask too often: a tool call gets a result that its model reads, all else an error."""

from __future__ import annotations

import json
from typing import Any, cast

from mcp_types import CallToolResult
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from bilt_mcp.state import RateLimitExceeded, Window
from bilt_mcp.tools import failure

from .doorman import limit_details

TOO_MANY = -32000
"""JSON-RPC leaves this range to servers."""


async def refuse_for_now(window: Window, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that was one too many."""
    asked = await _asked(Request(scope, receive))
    error = _error(window)
    headers = {"Retry-After": str(error.details["retry_after_seconds"])}
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.get("id")}
    status = 200
    if asked.get("method") == "tools/call" and "id" in asked:
        answer["result"] = _result(failure(error))
    else:
        status = 429
        data = {"error": error.error, **error.details}
        answer["error"] = {"code": TOO_MANY, "message": error.message, "data": data}
    await JSONResponse(answer, status, headers)(scope, receive, send)


async def _asked(request: Request) -> dict[str, Any]:
    try:
        asked: Any = json.loads(await request.body())
    except (ValueError, RecursionError):
        return {}
    if not isinstance(asked, dict):
        return {}
    found = cast("dict[str, Any]", asked)
    return found if isinstance(found.get("id", ""), str | int) else {}


def _error(window: Window) -> RateLimitExceeded:
    details = limit_details(window)
    return RateLimitExceeded(
        f"Nothing was done: this key may ask {window.limit} times in any 60 seconds. Wait "
        f"{details['retry_after_seconds']} s and call again. Do not poll: bilt_get_session with wait_seconds=45 and "
        "after_revision holds its answer until something changes.",
        **details,
    )


def _result(result: CallToolResult) -> dict[str, Any]:
    # The later era asks for its type, and the earlier one passes over it.
    told = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"resultType": "complete", **told}
