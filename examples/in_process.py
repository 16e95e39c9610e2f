"""Embed bilt-mcp in a program of your own: no server process, the same tools, and a cancel with its receipt.

    python examples/in_process.py PROJECT STORE

The steps run in the store's worker, not in this program: they would outlive it, and any other client of the store
could stop them just as well.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio
from mcp import Client

from bilt_mcp.server import Config, create_server


async def main() -> int:
    _, project, store = sys.argv
    config = Config.from_environ(project=project, store=store)
    async with Client(create_server(config)) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            answer: dict[str, Any] = result.structured_content or {}
            return answer

        session = await call("bilt_get_session")
        of = {"session_id": session["session_id"]}
        await call("bilt_send_message", **of, message="Build it")
        while session["status"] != "running":
            waiting = {"wait_seconds": 45, "after_revision": session["revision"]}
            session = await call("bilt_get_session", **of, **waiting)
        print(session["status"], session["progress"]["current_step"])

        receipt = await call("bilt_cancel_workflow", **of, reason="changed our mind")
        stopped = receipt["stopped"]
        print(
            f"{receipt['status']}: {stopped['processes_killed']} killed, {stopped['survivors']} left"
        )

        again = await call("bilt_cancel_workflow", **of)
        print(f"{again['error']}: {again['details']['message']}")
    return 0 if stopped["verified"] else 1


if __name__ == "__main__":
    sys.exit(anyio.run(main))
