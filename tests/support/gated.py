"""The gate before routes of a test's own, asked without a network: what comes in and goes out is plain to see."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.routing import BaseRoute, Router
from starlette.types import Message

from bilt_mcp.server import Config
from bilt_mcp.server.http.gate import Gate
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.server.http.site import Site

HOST = "127.0.0.1:8765"
JSON_TYPE = {"Content-Type": "application/json"}


@dataclass
class Exchange:
    """One request and what came of it so far."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)
    is_complete: bool = False
    parts_read: int = 0
    """How many parts of the body were asked for."""
    left: anyio.Event = field(default_factory=anyio.Event)
    """Set it, and the client is gone."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Gated:
    """A gate, and the site behind it."""

    gate: Gate
    site: Site
    routes: list[BaseRoute]
    """Behind it; more may be added."""

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        parts: Sequence[bytes] = (),
        *,
        client: str = "127.0.0.1",
        exchange: Exchange | None = None,
        stalls: bool = False,
    ) -> Exchange:
        """Ask and return the whole answer. Of a body in several parts the length is not announced.

        `stalls`: after the parts nothing more comes, though more was announced.
        """
        found = exchange or Exchange()
        given = {"Host": HOST, **(headers or {})}
        if len(parts) == 1 and not stalls:
            given.setdefault("Content-Length", str(len(parts[0])))
        elif parts:
            given.setdefault("Transfer-Encoding", "chunked")
        waiting = list(parts)

        async def receive() -> Message:
            if waiting or not found.parts_read:
                found.parts_read += 1
                part = waiting.pop(0) if waiting else b""
                more = bool(waiting) or stalls
                return {"type": "http.request", "body": part, "more_body": more}
            await found.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                assert not found.status, "an answer began twice"
                found.status = message["status"]
                found.headers = {
                    name.decode().lower(): value.decode() for name, value in message["headers"]
                }
            else:
                assert not found.is_complete, "something came after the end of an answer"
                found.body += message.get("body", b"")
                found.is_complete = not message.get("more_body", False)

        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "http_version": "1.1",
            "client": (client, 50_000),
            "server": ("127.0.0.1", 8765),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        }
        await self.gate(scope, receive, send)
        return found


@asynccontextmanager
async def gated(
    config: Config, routes: Sequence[BaseRoute], settings: HttpSettings | None = None
) -> AsyncGenerator[Gated]:
    """A gate before these routes."""
    site = Site(config, settings or HttpSettings())
    async with site.open():
        router = Router(routes, redirect_slashes=False)
        yield Gated(Gate(router, site), site, router.routes)
