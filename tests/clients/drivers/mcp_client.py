"""The Python SDK's `Client`, 2.x. `legacy` begins with the handshake, `auto` is the era without one."""

from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult
from scenario import Answer, drive, of_result, option, remote, saw, server


def transport() -> Any:
    where = remote()
    if where is None:
        command, arguments = server()
        return StdioServerParameters(command=command, args=arguments)
    url, headers = where
    http = httpx2.AsyncClient(headers=headers, timeout=60)
    return streamable_http_client(url, http_client=http)


async def main() -> None:
    asked: list[str] = []

    async def person(_: object, question: object) -> ElicitResult:
        asked.append(question.message)
        return ElicitResult(action="accept", content={"confirm": True})

    mode = option() or "auto"
    async with Client(transport(), mode=mode, elicitation_callback=person) as client:

        async def lists() -> list[str]:
            return [tool.name for tool in (await client.list_tools()).tools]

        async def calls(tool: str, given: dict[str, object]) -> Answer:
            return of_result(await client.call_tool(tool, given))

        await saw(lists, calls, protocol=client.protocol_version, asked=asked)


drive(main)
