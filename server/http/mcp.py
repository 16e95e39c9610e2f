"""MCP over streamable HTTP, in both eras: `/mcp` (CONTRACT section 2)."""

from __future__ import annotations

import anyio
from mcp.shared.inbound import MCP_METHOD_HEADER
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from .identity import identity_of
from .mcp_limits import refuse_for_now, window_of
from .mcp_servers import McpServers
from .site import Site

PATH = "/mcp"

_LISTENS = (MCP_METHOD_HEADER.encode(), b"subscriptions/listen")


def routes(site: Site) -> list[BaseRoute]:
    """What a site serves of MCP."""
    return [Route(PATH, _Endpoint(site))]


class _Endpoint:
    """One for all clients; each meets the server of his credential."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._servers = McpServers(site)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        window = window_of(scope)
        if window is not None and window.exceeded:
            await refuse_for_now(window, scope, receive, send)
            return
        async with self._servers.serving(identity_of(scope)) as served:
            if not _is_stream(scope):
                await served.answer(scope, receive, send)
                return
            # A stream has no end of its own, and a server that stops cannot wait for one.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_after, self._site.stopping, tasks.cancel_scope)
                await served.answer(scope, receive, send)
                tasks.cancel_scope.cancel()


def _is_stream(scope: Scope) -> bool:
    # The SDK refuses a request whose header says something else than its body.
    return scope["method"] == "GET" or _LISTENS in scope["headers"]


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
