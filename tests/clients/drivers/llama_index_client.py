"""LlamaIndex: its tools' output; that a call failed is said only by its text."""

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec
from scenario import Answer, drive, of_result, saw, server


async def main() -> None:
    command, arguments = server()
    client = BasicMCPClient(command, args=arguments)
    tools = {tool.metadata.name: tool for tool in await McpToolSpec(client).to_tool_list_async()}

    async def lists() -> list[str]:
        return list(tools)

    async def calls(tool: str, given: dict[str, object]) -> Answer:
        output = await tools[tool].acall(**given)
        found = of_result(output.raw_output)
        failed = found.how.startswith("isError")
        return Answer(found.body, "raw_output; the model sees text" if failed else found.how)

    await saw(lists, calls)


drive(main)
