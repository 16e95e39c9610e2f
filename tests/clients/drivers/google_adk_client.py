"""Google's Agent Development Kit: what its tools return to an agent."""

from unittest.mock import MagicMock

from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.adk.tools.tool_context import ToolContext
from mcp import StdioServerParameters
from mcp_types import ElicitResult
from scenario import Answer, drive, of_result, saw, server


async def main() -> None:
    command, arguments = server()
    parameters = StdioServerParameters(command=command, args=arguments)
    asked: list[str] = []

    async def person(_: object, question: object) -> ElicitResult:
        asked.append(question.message)
        return ElicitResult(action="accept", content={"confirm": True})

    connection = StdioConnectionParams(server_params=parameters, timeout=60)
    toolset = McpToolset(connection_params=connection, elicitation_callback=person)
    tools = {tool.name: tool for tool in await toolset.get_tools()}

    async def lists() -> list[str]:
        return list(tools)

    async def calls(tool: str, given: dict[str, object]) -> Answer:
        # An agent's run makes the context, from which a tool without credentials takes nothing.
        context = MagicMock(spec=ToolContext)
        return of_result(await tools[tool].run_async(args=given, tool_context=context))

    await saw(lists, calls, asked=asked)
    await toolset.close()


drive(main)
