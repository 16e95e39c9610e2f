"""The HTTP sessions of one credential's clients, in the era that has them.

The SDK keeps them, and refuses a new one when there are too many. Clients that end without saying so are common, so
here the session that was idle for longest makes room instead: its client, if there still is one, begins anew, as the
protocol has it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http import (
    LAST_EVENT_ID_HEADER,
    MCP_SESSION_ID_HEADER,
    check_accept_headers,
)
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .body import again
from .mcp_refusals import (
    another_stream,
    id_in_use,
    no_session,
    not_allowed,
    session_is_over,
    unfit,
    unknown_version,
    version_missing,
)
from .rpc_body import Message as Asked
from .rpc_body import NoMessage, read_message
from .rpc_error import rpc_error

MOST_SESSIONS = 100
"""Of one credential."""
SESSION_SECONDS = 1800.0
"""How long a session stays without a request or a stream."""
SAME_ID_SECONDS = 1.0
"""How long a request waits for one with its id: a client may have its answer before that is out of our hands."""
END_SECONDS = 1.0
"""How long it may take to tell a client that his stream has ended."""
_METHODS = ("GET", "POST", "DELETE")
_LAST_EVENT_ID = LAST_EVENT_ID_HEADER.encode()


class _Stream:
    """A stream of a session."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.has_begun = False
        self.is_over = anyio.Event()


@dataclass
class _Session:
    """One session, as far as its requests tell."""

    users: int = 0
    """Requests and streams that are being answered."""
    asked: dict[str, anyio.Event] = field(default_factory=dict[str, anyio.Event])
    """By the ids of those requests, as the SDK knows them: set when it is answered."""
    stream: _Stream | None = None
    """The one for what is no answer."""
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
        self._beginning = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Self]:
        """Serve; to be entered and left by one task, once."""
        async with self._manager.run():
            try:
                yield self
            finally:
                # Or each that has put a question to its client holds up the end for six seconds.
                with anyio.CancelScope(shield=True):
                    for name in list(self._sessions):
                        await self._end(name)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; its Host, Origin and credential were looked at."""
        request = Request(scope, receive)
        asked: Asked | None = None
        if request.method == "POST":
            body = await request.body()
            receive = again(body, receive)
            try:
                asked = read_message(body)
            except NoMessage as error:
                await rpc_error(400, error.code, str(error))(scope, receive, send)
                return
        name = request.headers.get(MCP_SESSION_ID_HEADER)
        version = request.headers.get(MCP_PROTOCOL_VERSION_HEADER)
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            refused = unknown_version(version, asked) or unfit(request)
            await (refused or self._manager.handle_request)(scope, receive, send)
        elif name is not None:
            await self._go_on(name, asked, scope, receive, send)
        elif asked is not None and asked.method == "initialize":
            await self._begin(scope, receive, send)
        else:
            await _without_session(request.method, asked)(scope, receive, send)

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin a session, if the request is answered well."""
        self._forget_old()
        beginning = True
        self._beginning += 1
        if len(self._sessions) + self._beginning > MOST_SESSIONS:
            await self._end_idle()

        async def note(message: Message) -> None:
            nonlocal beginning
            if message["type"] == "http.response.start" and message["status"] < 400:
                name = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                if name is not None:
                    self._sessions[name] = _Session()
                    self._beginning -= 1
                    beginning = False
            await send(message)

        try:
            await self._manager.handle_request(scope, receive, note)
        finally:
            if beginning:
                self._beginning -= 1

    async def _go_on(
        self, name: str, asked: Asked | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._forget_old()
        session = self._sessions.get(name)
        if session is None:
            await session_is_over()(scope, receive, send)
            return
        session.users += 1
        try:
            if asked is not None and asked.id is not None:
                await self._answer_one(session, asked, scope, receive, send)
            elif scope["method"] == "GET" and check_accept_headers(Request(scope))[1]:
                await self._listen(session, scope, receive, send)
            else:
                await self._manager.handle_request(scope, receive, send)
            if scope["method"] == "DELETE":
                self._sessions.pop(name, None)
        finally:
            session.users -= 1
            session.used_at = time.monotonic()

    async def _answer_one(
        self, session: _Session, asked: Asked, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request. Of two with one id the SDK would answer one, perhaps with what the other asked for."""
        number = str(asked.id)
        if (earlier := session.asked.get(number)) is not None:
            with anyio.move_on_after(SAME_ID_SECONDS):
                await earlier.wait()
        if number in session.asked:
            await id_in_use(asked)(scope, receive, send)
            return
        answered = session.asked[number] = anyio.Event()
        try:
            await self._manager.handle_request(scope, receive, send)
        finally:
            del session.asked[number]
            answered.set()

    async def _listen(self, session: _Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the session's stream in place of the one before.

        The SDK refuses it while there is another; but who asks for one has mostly lost the other, unseen by us.
        """
        while session.stream is not None:
            session.stream.scope.cancel()
            await session.stream.is_over.wait()
        stream = session.stream = _Stream()

        async def note(message: Message) -> None:
            stream.has_begun = True
            await send(message)

        try:
            with stream.scope:
                await self._manager.handle_request(_anew(scope), receive, note)
        finally:
            session.stream = None
            stream.is_over.set()
        if stream.scope.cancelled_caught and not stream.has_begun:
            await another_stream()(scope, receive, send)
        elif stream.scope.cancelled_caught:
            with anyio.move_on_after(END_SECONDS):  # who does not read does not see the end
                await send({"type": "http.response.body", "body": b""})

    def _forget_old(self) -> None:
        """Count no longer what the SDK has ended by itself."""
        ended = time.monotonic() - SESSION_SECONDS
        for name, session in list(self._sessions.items()):
            if not session.users and session.used_at < ended:
                del self._sessions[name]

    async def _end_idle(self) -> None:
        """End the session that was idle for longest, if one is."""
        idle = [found for found in self._sessions.items() if not found[1].users]
        if not idle:
            return
        await self._end(min(idle, key=lambda found: found[1].used_at)[0])

    async def _end(self, name: str) -> None:
        """End a session as its client would."""
        del self._sessions[name]
        ending: Scope = {
            "type": "http",
            "method": "DELETE",
            "path": "/",
            "query_string": b"",
            "headers": [(MCP_SESSION_ID_HEADER.encode(), name.encode())],
        }
        await self._manager.handle_request(ending, again(b"", _never), _nobody)


def _without_session(method: str, asked: Asked | None) -> Response:
    if method not in _METHODS:
        return not_allowed(*_METHODS)
    return version_missing(asked) if asked and asked.is_stateless else no_session(asked)


def _anew(scope: Scope) -> Scope:
    """A request without what only the SDK's own store of events knows: it would have no answer at all."""
    headers = [found for found in scope["headers"] if found[0] != _LAST_EVENT_ID]
    return {**scope, "headers": headers}


async def _never() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


async def _nobody(_: Message) -> None:
    pass
