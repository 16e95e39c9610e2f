"""An agent of Pydantic AI that builds.

    pip install "pydantic-ai-slim[mcp]"
    python examples/frameworks/pydantic_ai_agent.py --project examples/storefront

The arguments are passed to bilt-mcp.
"""

from __future__ import annotations

import asyncio
import sys

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel


def scripted(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """Makes the calls that a model would make, so that this runs without a key."""
    parts = [part for message in messages for part in message.parts]
    answers = [part.content for part in parts if isinstance(part, ToolReturnPart)]
    of = {"session_id": answers[-1].get("session_id")} if answers else {}
    script = [
        ("bilt_get_session", {}),
        ("bilt_send_message", {**of, "message": "Build it", "wait_for_response": True}),
        ("bilt_get_messages", {**of, "limit": 4}),
    ]
    if len(answers) < len(script):
        tool, arguments = script[len(answers)]
        print(f"calls {tool}")
        return ModelResponse([ToolCallPart(tool, arguments)])
    lines = [message["content"] for message in reversed(answers[-1]["messages"])]
    return ModelResponse([TextPart(f"The build is {answers[-2]['status']}:\n" + "\n".join(lines))])


async def main() -> None:
    # Its own patience is 5 s for the start, and just the 300 s that wait_for_response may take.
    bilt = MCPToolset(StdioTransport("bilt-mcp", sys.argv[1:]), init_timeout=30, read_timeout=310)
    model = FunctionModel(
        scripted
    )  # or a real one: "anthropic:NAME", with its key in the environment
    agent = Agent(model, toolsets=[bilt])
    async with agent:
        found = await agent.run("Build it, and say what it said.")
    print(found.output)


if __name__ == "__main__":
    asyncio.run(main())
