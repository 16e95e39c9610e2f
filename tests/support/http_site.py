"""An HTTP server in this process, on a real port, whose callers are who they say they are: routes without their gate.

For what needs a hand inside of the server; everything else goes to a real one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import Implementation
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from bilt_mcp.server.http import mcp
from bilt_mcp.server.http.identity import Identity, set_identity
from bilt_mcp.server.http.mcp_limits import set_window
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.server.http.site import Site
from bilt_mcp.state import Account, Window

from .agents import Agent, Json
from .places import Place
from .rpc import ENVELOPE, HANDSHAKE, STATELESS

CLIENT = Implementation(name="by-hand", version="1")
ME = {"name": "by-hand", "version": "1"}
ACCEPT = "application/json, text/event-stream"
MODERN = {"Accept": ACCEPT, "MCP-Protocol-Version": STATELESS}
ERAS = ("legacy", "auto")
"""As the SDK's client calls them: with a handshake, and without one where the server can do without."""


def identity(name: str, account: str = "local", *, read_only: bool = False) -> Identity:
    """A caller; his credential is his name."""
    return Identity(Account(account), f"key {name}", name, read_only)


class Wire:
    """One connection to `/mcp`, request by request."""

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self.http = http
        self.url = url
        self.session = ""
        self._ids = itertools.count(1)

    async def handshake(self, **capabilities: Any) -> httpx2.Response:
        """Begin a session of the era that has them; the answer to `initialize`."""
        hello = {"protocolVersion": HANDSHAKE, "capabilities": capabilities, "clientInfo": ME}
        found = await self.post(_message("initialize", hello, 0))
        if found.status_code == 200:
            self.session = found.headers["mcp-session-id"]
            await self.post(_message("notifications/initialized", {}))
        return found

    async def post(self, message: Json) -> httpx2.Response:
        """Post a message in the session, if there is one."""
        return await self.http.post(self.url, json=message, headers=self.headers())

    async def request(self, method: str, session: str) -> httpx2.Response:
        """A request of HTTP in any session."""
        body = _message("ping", {}, 1) if method == "POST" else None
        headers = self.headers(session)
        return await self.http.request(method, self.url, json=body, headers=headers)

    async def ask(self, method: str, **params: Any) -> Json:
        """A request's whole answer, in the era with sessions."""
        found = await self.post(_message(method, params, next(self._ids)))
        return answer(found)

    async def modern(
        self, method: str, about: str = "", *, capabilities: Json | None = None, **params: Any
    ) -> httpx2.Response:
        """A request in the era without sessions; `about` is what its header says it is about."""
        headers = {**MODERN, "Mcp-Method": method, **({"Mcp-Name": about} if about else {})}
        declared = {"io.modelcontextprotocol/clientCapabilities": capabilities or {}}
        params["_meta"] = {**ENVELOPE, **declared}
        message = _message(method, params, next(self._ids))
        return await self.http.post(self.url, json=message, headers=headers)

    async def call(self, tool: str, **arguments: Any) -> httpx2.Response:
        """A tool's answer, in the era without sessions."""
        return await self.modern("tools/call", tool, name=tool, arguments=arguments)

    async def may_ask(self, tool: str, arguments: Json, **more: Any) -> Json:
        """A tool's result, where a person can be asked; `more` is his answer."""
        given = {"name": tool, "arguments": arguments, **more}
        found = await self.modern("tools/call", tool, capabilities={"elicitation": {}}, **given)
        result: Json = answer(found)["result"]
        return result

    def headers(self, session: str | None = None) -> dict[str, str]:
        """What a request in a session has; None: in this one."""
        session = self.session if session is None else session
        known = {"Mcp-Session-Id": session, "MCP-Protocol-Version": HANDSHAKE} if session else {}
        return {"Accept": ACCEPT, **known}


def answer(found: httpx2.Response) -> Json:
    """The message of an answer that is JSON, or the last one of a stream."""
    text = found.text
    if found.headers["content-type"].startswith("text/event-stream"):
        text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
    told: Json = json.loads(text)
    return told


def _message(method: str, params: Json, number: int | None = None) -> Json:
    named = {} if number is None else {"id": number}
    return {"jsonrpc": "2.0", **named, "method": method, "params": params}


@dataclass
class HttpSite:
    """A server that runs."""

    url: str
    site: Site
    mcp: mcp.McpEndpoint
    people: dict[str, Identity]
    """Who may call, by what he sends as his key."""
    windows: dict[str, Window] = field(default_factory=dict[str, Window])
    """Whose limit is reached, by his key."""

    @contextlib.asynccontextmanager
    async def client(
        self, key: str = "alice", mode: str = "auto", **options: Any
    ) -> AsyncGenerator[Client]:
        """A client of the SDK with this key."""
        async with mcp_client(self.url, key, mode, **options) as client:
            yield client

    @contextlib.asynccontextmanager
    async def agent(
        self, key: str = "alice", mode: str = "auto", **options: Any
    ) -> AsyncGenerator[Agent]:
        """An agent with this key."""
        async with self.client(key, mode, **options) as client:
            yield Agent(client)

    @contextlib.asynccontextmanager
    async def wire(self, key: str = "alice") -> AsyncGenerator[Wire]:
        """A client of no library for MCP."""
        async with httpx2.AsyncClient(headers=bearer(key), timeout=30) as http:
            yield Wire(http, self.url)

    @property
    def servers(self) -> list[str]:
        """Whose servers there are, by their credentials."""
        return [which[0] for which in self.mcp.servers.served]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextlib.asynccontextmanager
async def mcp_client(
    url: str, key: str, mode: str = "auto", **options: Any
) -> AsyncGenerator[Client]:
    """A client of the SDK at `url`; `mode` is one of `ERAS`, the options are the SDK's."""
    async with create_mcp_http_client(bearer(key)) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, client_info=CLIENT, **options) as client:
            yield client


@contextlib.asynccontextmanager
async def site_at(place: Place, people: Mapping[str, Identity]) -> AsyncGenerator[HttpSite]:
    """The MCP routes of a site at `place`, for these callers."""
    site = Site(place.config(), HttpSettings())
    endpoint = mcp.McpEndpoint(site)
    app = Router([Route(mcp.PATH, endpoint)])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = HttpSite(
            f"http://127.0.0.1:{listening.getsockname()[1]}{mcp.PATH}", site, endpoint, dict(people)
        )
        asgi = _introduced(app, found)
        server = uvicorn.Server(uvicorn.Config(asgi, log_level="warning", lifespan="off"))
        async with site.open(), anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            try:
                yield found
            finally:
                site.stopping.set()
                server.should_exit = server.force_exit = True


def _introduced(app: ASGIApp, found: HttpSite) -> ASGIApp:
    """The application behind who trusts what each says of himself."""

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        key = headers[b"authorization"].decode().removeprefix("Bearer ")
        set_identity(scope, found.people[key])
        if key in found.windows:
            set_window(scope, found.windows[key])
        await app(scope, receive, send)

    return gate
