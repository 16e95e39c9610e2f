"""Pydantic AI's `MCPToolset`: a failure is a `ModelRetry`, whose text the model reads."""

from fastmcp.client.transports import StdioTransport
from pydantic_ai import ModelRetry
from pydantic_ai.mcp import MCPToolset
from scenario import Answer, drive, parsed, saw, server


async def main() -> None:
    asked: list[str] = []

    async def person(question: str, *_: object) -> dict[str, bool]:
        asked.append(question)
        return {"confirm": True}

    # Its own patience of 5 s with a first start is too short on a busy machine.
    transport = StdioTransport(*server())
    async with MCPToolset(transport, init_timeout=60, elicitation_handler=person) as bilt:

        async def lists() -> list[str]:
            return [tool.name for tool in await bilt.list_tools()]

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            try:
                found = await bilt.direct_call_tool(tool, given)
            except ModelRetry as error:
                return Answer(parsed(error.message), "ModelRetry, text")
            return Answer(found, "structured")

        await saw(lists, calls, asked=asked)


drive(main)
