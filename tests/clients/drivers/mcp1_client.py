"""The Python SDK's `ClientSession`, 1.x: what most programs in use have."""

from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.types import ElicitResult
from scenario import Answer, drive, of_result, saw, server


async def main() -> None:
    command, arguments = server()
    parameters = StdioServerParameters(command=command, args=arguments)
    asked: list[str] = []

    async def person(_: object, question: object) -> ElicitResult:
        asked.append(question.message)
        return ElicitResult(action="accept", content={"confirm": True})

    async with (
        stdio_client(parameters) as wires,
        ClientSession(*wires, elicitation_callback=person) as session,
    ):
        hello = await session.initialize()

        async def lists() -> list[str]:
            return [tool.name for tool in (await session.list_tools()).tools]

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            return of_result(await session.call_tool(tool, given))

        await saw(lists, calls, protocol=hello.protocolVersion, asked=asked)


drive(main)
