"""Reading resources in tests: what came, or the error that came instead."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import BlobResourceContents, TextResourceContents

from bilt_mcp.server import Config, create_server

from .builds import Build
from .waiting import wait_until

INVALID_PARAMS = -32602


async def contents(client: Client, uri: str) -> TextResourceContents | BlobResourceContents:
    """The one content of a resource, which is as it was asked for."""
    (found,) = (await client.read_resource(uri)).contents
    assert found.uri == uri
    return found


async def text(client: Client, uri: str) -> str:
    """The text of a resource."""
    found = await contents(client, uri)
    assert isinstance(found, TextResourceContents)
    assert len(found.text) <= 50_000 + 500
    return found.text


async def told(client: Client, uri: str) -> Any:
    """A resource that is JSON."""
    found = await contents(client, uri)
    assert found.mime_type == "application/json"
    return json.loads(await text(client, uri))


async def refusal(client: Client, uri: str) -> str:
    """The message of the error for a resource that cannot be read."""
    with pytest.raises(MCPError) as refused:
        await client.read_resource(uri)
    assert refused.value.error.code == INVALID_PARAMS
    assert refused.value.error.data == {"uri": uri}
    return refused.value.error.message


@asynccontextmanager
async def client_of(build: Build, account: str = "local") -> AsyncGenerator[Client]:
    """A client of a server of its own on the build's store."""
    environ = {"HOME": str(Path(build.project.root).parent)}
    config = Config(
        project=Path(build.project.root),
        store=build.location.folder,
        account=account,
        environ=environ,
    )
    async with Client(create_server(config)) as client:
        yield client


async def settled(build: Build, workflow_id: str) -> None:
    """Wait until the workflow's secrets are forgotten and its logs are safe to show."""
    kept = build.location.open / f"{workflow_id}.json"
    await wait_until(lambda: not kept.exists(), "the folder is settled")
