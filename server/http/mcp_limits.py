"""What MCP clients are told that ask too often: a tool call gets a result that its model reads, all else an error."""

from __future__ import annotations

from typing import Any

from mcp_types import CallToolResult
from starlette.types import Receive, Scope, Send

from bilt_mcp.state import RateLimitExceeded, Window
from bilt_mcp.tools import failure

from .doorman import limit_details
from .rpc_body import Message, NoMessage, read_message
from .rpc_error import SERVER_ERROR, rpc_answer, rpc_error


def must_wait(body: bytes) -> bool:
    """Whether a message that was one too many must be refused.

    What ends a call that was let in, or answers a question of one, is not: it is said once, and the call would hang.
    """
    try:
        asked = read_message(body)
    except NoMessage:
        return True
    return asked.method not in (None, "notifications/cancelled") or asked.id is not None


async def refuse_for_now(
    window: Window, body: bytes, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request that was one too many."""
    try:
        asked = read_message(body)
    except NoMessage:
        asked = Message(None, None)
    error = _error(window)
    headers = {"Retry-After": str(error.details["retry_after_seconds"])}
    if asked.method == "tools/call" and asked.id is not None:
        answer = rpc_answer(asked.id, 200, headers, result=_result(failure(error)))
    else:
        data = {"error": error.error, **error.details}
        answer = rpc_error(
            429, SERVER_ERROR, error.message, asked=asked.id, data=data, headers=headers
        )
    await answer(scope, receive, send)


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
