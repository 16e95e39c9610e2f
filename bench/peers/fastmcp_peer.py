"""fastmcp: a tool with `task=True` on a server over stdio; its worker runs in the server, as by default.

`fastmcp_peer.py memory|redis` drives it, `fastmcp_peer.py serve URL` is the server.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from fastmcp import Client, FastMCP
from fastmcp.client.transports import StdioTransport
from fastmcp_tasks import TasksExtension
from fastmcp_tasks.client import ToolTask, call_tool_task
from peer_lines import Driver, Job, answers, free_port, main, run_command


def server(url: str) -> FastMCP:
    """The server as its user writes it."""
    mcp = FastMCP("bench")
    mcp.add_extension(TasksExtension(url=url))

    @mcp.tool(task=True)
    async def build(argv: list[str], cwd: str, env: dict[str, str], group: bool) -> int:
        """Run a command."""
        return await run_command({"argv": argv, "cwd": cwd, "env": env, "group": group})

    return mcp


class Fastmcp(Driver):
    """A client over stdio, and Redis where it is asked for."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._backend = backend
        self._stack = AsyncExitStack()
        self._client: Client[Any]
        self._task: ToolTask

    async def open(self, folder: Path) -> dict[str, Any]:
        url = "memory://"
        if self._backend == "redis":
            port = free_port()
            redis = str(Path(sys.executable).parent / "redis-server")
            self.serve(
                [redis, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)],
                folder / "redis.log",
            )

            async def up() -> None:
                socket.create_connection(("127.0.0.1", port)).close()

            await answers(up)
            url = f"redis://127.0.0.1:{port}/0"
        transport = StdioTransport(
            sys.executable,
            [__file__, "serve", url],
            keep_alive=False,
            log_file=folder / "server.log",
        )
        began = time.monotonic_ns()
        self._client = await self._stack.enter_async_context(Client(transport))
        await self._client.list_tools()
        return {"first_answer_ms": (time.monotonic_ns() - began) / 1e6}

    async def start(self, job: Job) -> None:
        self._task = await call_tool_task(self._client, "build", job)

    async def cancel(self) -> None:
        await self._task.cancel()

    async def is_over(self) -> bool:
        return (await self._task.status()).status in ("completed", "failed", "cancelled")

    async def close(self) -> None:
        await self._stack.aclose()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        server(sys.argv[2]).run(show_banner=False)
    else:
        main(Fastmcp(sys.argv[1]))
