"""The least that servers over HTTP can be: Starlette, and the bare MCPServer of the same SDK, under the same uvicorn.

bare_http.py routes JSON_FILE      /same answers with what the file has; /events is a stream that says nothing;
                                   /lines runs a command (the argv, as JSON, in the query) and streams its lines
bare_http.py mcp                   /mcp has a tool that does nothing
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

SSE = "text/event-stream"


def routes(file: str) -> ASGIApp:
    """An application without anything else."""
    same: Any = json.loads(Path(file).read_text("utf-8"))

    async def get(_: Request) -> JSONResponse:
        return JSONResponse(same)

    async def events(_: Request) -> StreamingResponse:
        return StreamingResponse(_nothing(), media_type=SSE)

    async def lines(request: Request) -> StreamingResponse:
        argv = json.loads(request.query_params["argv"])
        return StreamingResponse(_lines(argv), media_type=SSE)

    all_routes = [Route("/same/{id}", get), Route("/events", events), Route("/lines", lines)]
    return Starlette(routes=all_routes)


async def _nothing() -> AsyncGenerator[bytes]:
    yield b"retry: 1000\n\n"
    await asyncio.Event().wait()


async def _lines(argv: list[str]) -> AsyncGenerator[bytes]:
    yield b"retry: 1000\n\n"
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async for line in process.stdout:
        told = json.dumps({"content": line.decode().rstrip()})
        yield f"event: token\ndata: {told}\n\n".encode()
    await process.wait()


def mcp() -> ASGIApp:
    """The SDK's server as its documentation shows it first."""
    from mcp.server.mcpserver import MCPServer

    server = MCPServer[None]("bare", log_level="ERROR")

    @server.tool()
    def nothing() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Do nothing."""
        return {"did": "nothing"}

    return server.streamable_http_app()


def main() -> None:
    """Serve, on a port that a line on standard error says, as `bilt-mcp serve` does."""
    kind, *more = sys.argv[1:]
    app = routes(*more) if kind == "routes" else mcp()
    # As in server/http/listening.py, as far as it concerns how requests are served.
    config = uvicorn.Config(
        app, ws="none", log_config=None, access_log=False, server_header=False, lifespan="on"
    )
    # With its protocol, or asyncio leaves Nagle's algorithm on.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(2048)
        port = listening.getsockname()[1]
        print(f"bare is ready on http://127.0.0.1:{port}", file=sys.stderr, flush=True)
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
