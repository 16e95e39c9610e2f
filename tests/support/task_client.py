"""The SDK's own client with the tasks extension: method by method, or as a program that waits for a result."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar, Literal

import anyio
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    Implementation,
    Request,
    Result,
)
from pydantic import ConfigDict

from bilt_mcp.server import create_server
from bilt_mcp.server.tasks import TASKS

from .places import Place

Json = dict[str, Any]
MODERN = "2026-07-28"


class Raw(Result):
    """Any result, field by field as it came."""

    model_config = ConfigDict(extra="allow")

    def fields(self) -> Json:
        found = dict(self.model_extra or {})
        assert found.pop("resultType") == "complete"
        return found


class Handle(Result):
    """What a call is answered with that became a task."""

    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"] = "task"

    def fields(self) -> Json:
        return dict(self.model_extra or {})


class _TaskRequest(Request[Json, str]):
    """Told to HTTP by its task's name."""

    name_param: ClassVar[str | None] = "taskId"


class TakesTasks(ClientExtension):
    """Declares the extension, and follows a task to its end as the specification says; `seen` is what it saw."""

    identifier = TASKS

    def __init__(self, answer: Json | None = None) -> None:
        """`answer` is given to every question that a task asks."""
        self.seen: list[Json] = []
        self._answer = answer

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Handle, resolve=self._follow)]

    async def _follow(self, handle: Handle, context: ClaimContext) -> CallToolResult:
        task = handle.fields()
        answered: set[str] = set()
        while True:
            self.seen.append(task)
            if task["status"] == "completed":
                return CallToolResult.model_validate(task["result"])
            if task["status"] not in {"working", "input_required"}:
                raise AssertionError(task)
            asked = set(task.get("inputRequests", ())) - answered
            if asked and self._answer is not None:
                answered |= asked
                given = dict.fromkeys(asked, self._answer)
                params = {"taskId": task["taskId"], "inputResponses": given}
                await context.session.send_request(
                    _TaskRequest(method="tasks/update", params=params), Raw
                )
            await anyio.sleep(task["pollIntervalMs"] / 1000)
            params = {"taskId": task["taskId"]}
            found = await context.session.send_request(
                _TaskRequest(method="tasks/get", params=params), Raw
            )
            task = found.fields()


class TaskClient:
    """Speaks the extension's methods one by one."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def ask(self, method: str, **params: Any) -> Json:
        """A request's result."""
        request = _TaskRequest(method=method, params=params)
        return (await self.client.session.send_request(request, Raw)).fields()

    async def refused(self, method: str, **params: Any) -> tuple[int, str, Any]:
        """A request's error."""
        with pytest.raises(MCPError) as error:
            await self.ask(method, **params)
        return error.value.error.code, error.value.error.message, error.value.error.data

    async def get(self, task_id: str) -> Json:
        return await self.ask("tasks/get", taskId=task_id)

    async def cancel(self, task_id: str) -> None:
        assert await self.ask("tasks/cancel", taskId=task_id) == {}

    async def update(self, task_id: str, responses: Json) -> None:
        given = {"taskId": task_id, "inputResponses": responses}
        assert await self.ask("tasks/update", **given) == {}

    async def call(self, tool: str, **arguments: Any) -> CallToolResult | Handle:
        """A tool's result, or the handle of the task that it became."""
        found = await self.client.session.call_tool(tool, arguments, allow_claimed=True)
        assert isinstance(found, CallToolResult | Handle)
        return found

    async def session_id(self) -> str:
        found = await self.call("bilt_get_session")
        assert isinstance(found, CallToolResult)
        return str(found.structured_content["session_id"])

    async def start(self, **arguments: Any) -> Json:
        """A workflow as a task: its handle."""
        session_id = await self.session_id()
        given = {"session_id": session_id, "message": "build", "wait_for_response": True}
        found = await self.call("bilt_send_message", **(given | arguments))
        assert isinstance(found, Handle), found
        return found.fields()


async def _never_asked(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    raise AssertionError(f"{context.request_id}: tasks/update answers what a task asks: {params}")


@contextlib.asynccontextmanager
async def task_client(
    place: Place,
    account: str = "local",
    *,
    elicits: bool = True,
    extension: ClientExtension | None = None,
    declares: bool = True,
) -> AsyncGenerator[TaskClient]:
    """A client in this process. `elicits`: it can ask a person. `declares`: it takes tasks."""
    async with Client(
        create_server(place.config(account)),
        mode=MODERN,
        client_info=Implementation(name="by-hand", version="1"),
        extensions=[extension or TakesTasks()] if declares else [],
        elicitation_callback=_never_asked if elicits else None,
    ) as client:
        yield TaskClient(client)
