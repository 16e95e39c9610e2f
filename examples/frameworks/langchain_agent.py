"""An agent of LangChain that builds, through langchain-mcp-adapters.

    pip install langchain langchain-mcp-adapters
    python examples/frameworks/langchain_agent.py --project examples/storefront

The arguments are passed to bilt-mcp.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools


class Scripted(BaseChatModel):
    """Makes the calls that a model would make, so that this runs without a key."""

    _llm_type = "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Scripted:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        answers = [json.loads(said.text) for said in messages if isinstance(said, ToolMessage)]
        of = {"session_id": answers[-1].get("session_id")} if answers else {}
        script = [
            ("bilt_get_session", {}),
            ("bilt_send_message", {**of, "message": "Build it", "wait_for_response": True}),
            ("bilt_get_messages", {**of, "limit": 4}),
        ]
        if len(answers) < len(script):
            tool, arguments = script[len(answers)]
            call = {"name": tool, "args": arguments, "id": str(len(answers))}
            reply = AIMessage("", tool_calls=[call])
        else:
            lines = [message["content"] for message in reversed(answers[-1]["messages"])]
            reply = AIMessage(f"The build is {answers[-2]['status']}:\n" + "\n".join(lines))
        return ChatResult(generations=[ChatGeneration(message=reply)])


async def main() -> None:
    server = {"transport": "stdio", "command": "bilt-mcp", "args": sys.argv[1:]}
    client = MultiServerMCPClient({"bilt": server})
    # One session for all calls: without it, each call starts a server of its own.
    async with client.session("bilt") as session:
        model = Scripted()  # or a real one: "anthropic:NAME", with its key in the environment
        agent = create_agent(model, await load_mcp_tools(session))
        asked = {"messages": [{"role": "user", "content": "Build it, and say what it said."}]}
        said = (await agent.ainvoke(asked))["messages"]
    for message in said:
        for call in getattr(message, "tool_calls", []):
            print(f"calls {call['name']}")
    print(said[-1].text)


if __name__ == "__main__":
    asyncio.run(main())
