"""What a server does for clients that may look and not touch."""

from __future__ import annotations

from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST

from bilt_mcp.state import PermissionDenied

_CHANGE_NOTHING = (
    *("initialize", "ping", "server/discover", "logging/setLevel", "completion/complete"),
    *("tools/list", "tools/call", "tasks/get", "prompts/list", "prompts/get"),
    *("resources/list", "resources/templates/list", "resources/read"),
    *("resources/subscribe", "resources/unsubscribe", "subscriptions/listen"),
)
"""Methods of the protocol. Each tool is looked at for itself."""


def changes_nothing(tool: Tool) -> bool:
    """Whether a tool only reads, by what its clients are told of it."""
    return tool.annotations is not None and tool.annotations.read_only_hint is True


def denied(what: str) -> PermissionDenied:
    """What a client is told that may not touch."""
    return PermissionDenied(
        f"Nothing was done: this key is read-only, and {what} changes something. bilt_get_session and "
        "bilt_get_messages work; for more, ask the user for a key that is not read-only."
    )


async def refuse_changes(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """A middleware: refuses every method that is not known to change nothing."""
    if ctx.request_id is None or ctx.method in _CHANGE_NOTHING:
        return await call_next(ctx)
    error = denied(ctx.method)
    raise MCPError(INVALID_REQUEST, error.message, {"error": error.error, **error.details})
