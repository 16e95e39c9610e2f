"""The least that an MCP server in Python can be: the same SDK, its own stdio, a tool that does nothing."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer[None]("bare")


@server.tool()
def nothing() -> dict[str, str]:
    """Do nothing."""
    return {"did": "nothing"}


if __name__ == "__main__":
    server.run("stdio")
