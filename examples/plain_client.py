"""Follow a build to its end with the MCP SDK's client over stdio: the four calls that every agent makes.

    python examples/plain_client.py --project examples/storefront

The arguments are passed to bilt-mcp. Nothing here polls: each wait is answered when something has changed.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

FINAL = {"completed", "failed", "cancelled"}


async def main() -> int:
    server = StdioServerParameters(command="bilt-mcp", args=sys.argv[1:])
    async with Client(server) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            answer: dict[str, Any] = result.structured_content or {}
            if result.is_error:  # always with these two, and the message says which call comes next
                raise SystemExit(f"{answer['error']}: {answer['details']['message']}")
            return answer

        session = await call("bilt_get_session")
        of = {"session_id": session["session_id"]}
        page = await call("bilt_get_messages", **of, limit=1)
        await call("bilt_send_message", **of, message="Build it")
        while True:
            waiting = {"wait_seconds": 45, "after_revision": session["revision"]}
            session = await call("bilt_get_session", **of, **waiting)
            print(session["status"], session["progress"]["message"])
            if session["status"] in FINAL:
                break
        while True:  # everything that was said, each line once
            page = await call("bilt_get_messages", **of, after=page["next_after"])
            for message in page["messages"]:
                print(f"{message['step'] or '':>10}  {message['content']}")
            if not page["has_more"]:
                return 0 if session["status"] == "completed" else 1


if __name__ == "__main__":
    sys.exit(anyio.run(main))
