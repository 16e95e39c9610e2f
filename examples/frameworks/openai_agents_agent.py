"""An agent of the OpenAI Agents SDK that builds.

    pip install openai-agents
    python examples/frameworks/openai_agents_agent.py --project examples/storefront

The arguments are passed to bilt-mcp.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStdio
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)


class Scripted(Model):
    """Makes the calls that a model would make, so that this runs without a key."""

    async def get_response(
        self, system_instructions: str | None, input: Any, *_: Any, **__: Any
    ) -> ModelResponse:
        outputs = [item["output"] for item in input if item.get("type") == "function_call_output"]
        answers = [json.loads(output[0]["text"]) for output in outputs]
        of = {"session_id": answers[-1].get("session_id")} if answers else {}
        script = [
            ("bilt_get_session", {}),
            ("bilt_send_message", {**of, "message": "Build it", "wait_for_response": True}),
            ("bilt_get_messages", {**of, "limit": 4}),
        ]
        if len(answers) < len(script):
            tool, arguments = script[len(answers)]
            print(f"calls {tool}")
            call = {"name": tool, "arguments": json.dumps(arguments), "call_id": tool}
            item: Any = ResponseFunctionToolCall(type="function_call", **call)
        else:
            lines = [message["content"] for message in reversed(answers[-1]["messages"])]
            text = f"The build is {answers[-2]['status']}:\n" + "\n".join(lines)
            said = ResponseOutputText(type="output_text", text=text, annotations=[])
            item = ResponseOutputMessage(
                id="1", type="message", role="assistant", status="completed", content=[said]
            )
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("this one answers all at once")


async def main() -> None:
    set_tracing_disabled(True)  # it would send what happens here to its maker
    server: Any = {"command": "bilt-mcp", "args": sys.argv[1:]}
    # Its own patience is 5 s: too short for wait_seconds (45 s at most) and wait_for_response (300 s).
    async with MCPServerStdio(server, client_session_timeout_seconds=310) as bilt:
        model = Scripted()  # or the name of a real one, with its key in OPENAI_API_KEY
        agent = Agent("builder", model=model, mcp_servers=[bilt])
        found = await Runner.run(agent, "Build it, and say what it said.")
    print(found.final_output)


if __name__ == "__main__":
    asyncio.run(main())
