"""An HTTP server in this process, on a real port, whose callers are who they say they are: routes without their gate.

For what needs a hand inside of the server; everything else goes to a real one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import anyio
import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import Implementation
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from bilt_mcp.server.http import mcp
from bilt_mcp.server.http.identity import Identity, set_identity
from bilt_mcp.server.http.mcp_limits import set_window
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.server.http.site import Site
from bilt_mcp.state import Account, Window

from .agents import Agent
from .places import Place

CLIENT = Implementation(name="by-hand", version="1")
ERAS = ("legacy", "auto")
"""As the SDK's client calls them: with a handshake, and without one where the server can do without."""


def identity(name: str, account: str = "local", *, read_only: bool = False) -> Identity:
    """A caller; his credential is his name."""
    return Identity(Account(account), f"key {name}", name, read_only)


@dataclass
class HttpSite:
    """A server that runs."""

    url: str
    site: Site
    people: dict[str, Identity]
    """Who may call, by what he sends as his key."""
    windows: dict[str, Window] = field(default_factory=dict[str, Window])
    """Whose limit is reached, by his key."""

    @contextlib.asynccontextmanager
    async def client(self, key: str = "alice", mode: str = "auto") -> AsyncGenerator[Client]:
        """A client of the SDK with this key."""
        async with mcp_client(self.url, key, mode) as client:
            yield client

    @contextlib.asynccontextmanager
    async def agent(self, key: str = "alice", mode: str = "auto") -> AsyncGenerator[Agent]:
        """An agent with this key."""
        async with self.client(key, mode) as client:
            yield Agent(client)

    def http(self, key: str = "alice") -> httpx2.AsyncClient:
        """A client of no library for MCP."""
        return httpx2.AsyncClient(headers=bearer(key), timeout=30)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextlib.asynccontextmanager
async def mcp_client(url: str, key: str, mode: str = "auto") -> AsyncGenerator[Client]:
    """A client of the SDK at `url`; `mode` is one of `ERAS`."""
    async with create_mcp_http_client(bearer(key)) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, client_info=CLIENT) as client:
            yield client


@contextlib.asynccontextmanager
async def site_at(place: Place, people: Mapping[str, Identity]) -> AsyncGenerator[HttpSite]:
    """The MCP routes of a site at `place`, for these callers."""
    site = Site(place.config(), HttpSettings())
    app = Starlette(routes=mcp.routes(site))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = HttpSite(
            f"http://127.0.0.1:{listening.getsockname()[1]}{mcp.PATH}", site, dict(people)
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
