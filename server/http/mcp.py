"""MCP over streamable HTTP, in both eras: `/mcp` (CONTRACT section 2)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from .body import again
from .identity import identity_of, window_of
from .mcp_limits import must_wait, refuse_for_now
from .mcp_servers import McpServers
from .site import Site

PATH = "/mcp"


def routes(site: Site) -> list[BaseRoute]:
    """What a site serves of MCP."""
    return [Route(PATH, McpEndpoint(site))]


class McpEndpoint:
    """One for all clients; each meets the server of his credential."""

    def __init__(self, site: Site) -> None:
        self.servers = McpServers(site)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        window = window_of(scope)
        if window is not None:
            body = await Request(scope, receive).body()
            if must_wait(body):
                await refuse_for_now(window, body, scope, receive, send)
                return
            receive = again(body, receive)
        async with self.servers.serving(identity_of(scope)) as sessions:
            await sessions.answer(scope, receive, send)
