"""The Python SDK's `ClientSession`, 1.x: what most programs in use have."""

from typing import Any

from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import ElicitResult
from scenario import Answer, drive, of_result, remote, saw, server


def transport() -> Any:
    where = remote()
    if where is None:
        command, arguments = server()
        return stdio_client(StdioServerParameters(command=command, args=arguments))
    return streamablehttp_client(where[0], headers=where[1])


async def main() -> None:
    asked: list[str] = []

    async def person(_: object, question: object) -> ElicitResult:
        asked.append(question.message)
        return ElicitResult(action="accept", content={"confirm": True})

    async with (
        transport() as (reading, writing, *_),
        ClientSession(reading, writing, elicitation_callback=person) as session,
    ):
        hello = await session.initialize()

        async def lists() -> list[str]:
            return [tool.name for tool in (await session.list_tools()).tools]

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            return of_result(await session.call_tool(tool, given))

        await saw(lists, calls, protocol=hello.protocolVersion, asked=asked)


drive(main)
