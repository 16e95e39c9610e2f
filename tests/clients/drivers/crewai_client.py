"""CrewAI: what its tools return to an agent, which is text."""

from crewai_tools import MCPServerAdapter
from mcp import StdioServerParameters
from scenario import Answer, drive, parsed, saw, server


async def main() -> None:
    command, arguments = server()
    with MCPServerAdapter(StdioServerParameters(command=command, args=arguments)) as found:
        tools = {tool.name: tool for tool in found}

        async def lists() -> list[str]:
            return list(tools)

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            return Answer(parsed(tools[tool].run(**given)), "text")

        await saw(lists, calls)


drive(main)
