"""FastMCP's client: it raises what failed, with the JSON as the error's text."""

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from fastmcp.exceptions import ToolError
from scenario import Answer, drive, of_result, parsed, remote, saw, server


async def main() -> None:
    asked: list[str] = []

    async def person(question: str, *_: object) -> dict[str, bool]:
        asked.append(question)
        return {"confirm": True}

    where = remote()
    transport = StreamableHttpTransport(*where) if where else StdioTransport(*server())
    async with Client(transport, elicitation_handler=person) as client:

        async def lists() -> list[str]:
            return [tool.name for tool in await client.list_tools()]

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            try:
                return of_result(await client.call_tool(tool, given))
            except ToolError as error:
                return Answer(parsed(error), "ToolError, text")

        await saw(lists, calls, asked=asked)


drive(main)
