"""The HTTP sessions of one credential's clients, in the era that has them.

The SDK keeps them, and refuses a new one when there are too many. Clients that end without saying so are common, so
here the session that was idle for longest makes room instead: its client, if there still is one, begins anew, as the
protocol has it.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, cast

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from .body import again

MOST_SESSIONS = 100
"""Of one credential."""
SESSION_SECONDS = 1800.0
"""How long a session stays without a request or a stream."""


@dataclass
class _Session:
    """One session, as far as its requests tell."""

    users: int = 0
    """Requests and streams that are being answered."""
    used_at: float = field(default_factory=time.monotonic)


class Sessions:
    """Answers the requests of one credential."""

    def __init__(self, server: MCPServer, most_body_bytes: int) -> None:
        self._manager = StreamableHTTPSessionManager(
            # The SDK has no public way to bring one's own manager.
            server._lowlevel_server,  # pyright: ignore[reportPrivateUsage]
            session_idle_timeout=SESSION_SECONDS,
            max_request_body_size=most_body_bytes,
            max_sessions=MOST_SESSIONS,
        )
        self._sessions: dict[str, _Session] = {}

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Self]:
        """Serve; to be entered and left by one task, once."""
        async with self._manager.run():
            yield self

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; its Host, Origin and credential were looked at."""
        headers = Headers(scope=scope)
        name = headers.get(MCP_SESSION_ID_HEADER)
        version = headers.get(MCP_PROTOCOL_VERSION_HEADER)
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            await self._manager.handle_request(scope, receive, send)
        elif name is None:
            await self._begin(scope, receive, send)
        else:
            await self._go_on(name, scope, receive, send)

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request without a session: if it is answered well, there is one then."""
        self._forget_old()
        if len(self._sessions) >= MOST_SESSIONS and scope["method"] == "POST":
            body = await Request(scope, receive).body()
            receive = again(body, receive)
            if _method(body) == "initialize":
                await self._end_idle(scope)

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                name = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                if name is not None:
                    self._sessions[name] = _Session()
            await send(message)

        await self._manager.handle_request(scope, receive, note)

    async def _go_on(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._sessions.get(name)
        if session is None:
            await self._manager.handle_request(scope, receive, send)  # it says that there is none
            return
        session.users += 1
        try:
            await self._manager.handle_request(scope, receive, send)
            if scope["method"] == "DELETE":
                self._sessions.pop(name, None)
        finally:
            session.users -= 1
            session.used_at = time.monotonic()

    def _forget_old(self) -> None:
        """Count no longer what the SDK has ended by itself."""
        ended = time.monotonic() - SESSION_SECONDS
        for name, session in list(self._sessions.items()):
            if not session.users and session.used_at < ended:
                del self._sessions[name]

    async def _end_idle(self, scope: Scope) -> None:
        """End the session that was idle for longest, if one is."""
        idle = [found for found in self._sessions.items() if not found[1].users]
        if not idle:
            return
        name = min(idle, key=lambda found: found[1].used_at)[0]
        del self._sessions[name]
        ending = {
            **scope,
            "method": "DELETE",
            "headers": [(MCP_SESSION_ID_HEADER.encode(), name.encode())],
        }
        await self._manager.handle_request(ending, again(b"", _never), _nobody)


def _method(body: bytes) -> object:
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", asked).get("method") if isinstance(asked, dict) else None


async def _never() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


async def _nobody(_: Message) -> None:
    pass
