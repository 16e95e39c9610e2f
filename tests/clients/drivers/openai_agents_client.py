"""OpenAI Agents SDK: what `MCPServerStdio` hands to an agent. Its default patience of 5 s is too short for a wait."""

from agents.mcp import MCPServerStdio
from scenario import Answer, drive, of_result, saw, server


async def main() -> None:
    command, arguments = server()
    parameters = {"command": command, "args": arguments}
    async with MCPServerStdio(parameters, client_session_timeout_seconds=60) as bilt:

        async def lists() -> list[str]:
            return [tool.name for tool in await bilt.list_tools()]

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            return of_result(await bilt.call_tool(tool, given))

        await saw(lists, calls)


drive(main)
