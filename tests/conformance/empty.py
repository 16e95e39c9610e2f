"""A server that has nothing at all: whatever passes here says nothing about ours."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

from .serving import serve

if __name__ == "__main__":
    serve(MCPServer("empty", log_level="ERROR").streamable_http_app())
