"""smolagents: what its tools return to an agent; a failure is a value like any other."""

from mcp import StdioServerParameters
from scenario import Answer, drive, parsed, saw, server
from smolagents import MCPClient


async def main() -> None:
    command, arguments = server()
    parameters = StdioServerParameters(command=command, args=arguments)
    with MCPClient(parameters, structured_output=True) as found:
        tools = {tool.name: tool for tool in found}

        async def lists() -> list[str]:
            return list(tools)

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            output = tools[tool](**given)
            how = "text" if isinstance(output, str) else "a value"
            return Answer(parsed(output) if isinstance(output, str) else output, how)

        await saw(lists, calls)


drive(main)
