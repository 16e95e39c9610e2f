"""langchain-mcp-adapters: the tools as an agent of LangChain calls them."""

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from scenario import Answer, drive, parsed, saw, server, text_of


async def main() -> None:
    command, arguments = server()
    client = MultiServerMCPClient(
        {"bilt": {"transport": "stdio", "command": command, "args": arguments}}
    )
    async with client.session("bilt") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}

        async def lists() -> list[str]:
            return list(tools)

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            call = {"type": "tool_call", "id": "1", "name": tool, "args": given}
            message = await tools[tool].ainvoke(call)
            body = parsed(text_of(message.content))
            if message.status == "error":
                return Answer(body, "ToolMessage with status error, text")
            structured = message.artifact["structured_content"]
            same = structured == body
            return Answer(body, "artifact and text" if same else "artifact and text differ")

        await saw(lists, calls)


drive(main)
