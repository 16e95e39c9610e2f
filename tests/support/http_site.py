"""MCP over HTTP in this process, on a real port and behind the gate, with a hand inside; and clients for it."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import Implementation
from starlette.routing import Route, Router

from bilt_mcp.server.http import mcp
from bilt_mcp.server.http.gate import Gate
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.server.http.site import Site

from .agents import Agent, Json
from .http import bearer, new_key
from .places import Place
from .rpc import ENVELOPE, HANDSHAKE, STATELESS

CLIENT = Implementation(name="by-hand", version="1")
ME = {"name": "by-hand", "version": "1"}
ACCEPT = "application/json, text/event-stream"
MODERN = {"Accept": ACCEPT, "MCP-Protocol-Version": STATELESS}
UNLIMITED = HttpSettings(key_rate=0)
ERAS = ("legacy", "auto")
"""As the SDK's client calls them: with a handshake, and without one where the server can do without."""


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
    """A server that runs, and keys for it."""

    url: str
    site: Site
    mcp: mcp.McpEndpoint
    keys: dict[str, str] = field(default_factory=dict[str, str])
    """By their names."""

    async def make_key(self, name: str, account: str = "local", **more: Any) -> None:
        """A key of this name."""
        self.keys[name] = await new_key(self.site.access, name, account, **more)

    @contextlib.asynccontextmanager
    async def client(
        self, key: str = "alice", mode: str = "auto", **options: Any
    ) -> AsyncGenerator[Client]:
        """A client of the SDK with this key."""
        async with mcp_client(self.url, self.keys[key], mode, **options) as client:
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
        async with httpx2.AsyncClient(headers=bearer(self.keys[key]), timeout=30) as http:
            yield Wire(http, self.url)

    @property
    def servers(self) -> list[str]:
        """Whose servers there are."""
        return sorted(which[3].removeprefix("key ") for which in self.mcp.servers.served)


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
async def site_at(
    place: Place, settings: HttpSettings = UNLIMITED, keys: dict[str, str] | None = None
) -> AsyncGenerator[HttpSite]:
    """MCP at `place`, behind the gate; alice, bob and reader have keys, and eve one of another account.

    `keys` are those of an earlier site there.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        site = Site(place.config(), replace(settings, port=port))
        endpoint = mcp.McpEndpoint(site)
        app = Gate(Router([Route(mcp.PATH, endpoint)]), site)
        found = HttpSite(f"http://127.0.0.1:{port}{mcp.PATH}", site, endpoint, keys or {})
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        async with site.open(), anyio.create_task_group() as tasks:
            if keys is None:
                for name in ("alice", "bob"):
                    await found.make_key(name)
                await found.make_key("eve", "others")
                await found.make_key("reader", read_only=True)
            tasks.start_soon(server.serve, [listening])
            try:
                yield found
            finally:
                site.stopping.set()
                server.should_exit = server.force_exit = True
