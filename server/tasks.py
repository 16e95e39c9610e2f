"""The protocol's tasks extension (SEP-2663): a tool call may be answered by a handle, and asked for its result later.

Knows the wire, and nothing of what a task is: a `TaskSource` does. For revision 2026-07-28 only; who does not declare
the extension on a request, or speaks another revision, never meets a task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import HEADER_MISMATCH, INVALID_PARAMS, CallToolRequestParams
from pydantic import BaseModel, ConfigDict, Field

TASKS = "io.modelcontextprotocol/tasks"
VERSIONS = frozenset({"2026-07-28"})

Json = dict[str, Any]
Context = ServerRequestContext[Any, Any]
TaskStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]
OVER: frozenset[TaskStatus] = frozenset({"completed", "failed", "cancelled"})
"""Statuses that never change."""


class NoSuchTask(Exception):
    """There is no such task, or no longer, or it is somebody else's: the caller cannot tell which."""


class Task(NamedTuple):
    """A task at one moment."""

    task_id: str
    status: TaskStatus
    created_at: str
    """ISO 8601, like `updated_at`."""
    updated_at: str
    ttl_ms: int | None
    """From `created_at`; None: it is kept for ever."""
    poll_ms: int
    message: str = ""
    input_requests: Mapping[str, Json] | None = None
    """With `input_required`: what is asked, by a key that is never used again."""
    result: Json | None = None
    """With `completed`: what the call would have answered, an error of the tool included."""
    error: Json | None = None
    """With `failed`: the JSON-RPC error that the call would have had."""

    def handle(self) -> Json:
        """What answers the tool call: the task without anything that came of it."""
        said: Json = {
            "taskId": self.task_id,
            "status": self.status,
            "createdAt": self.created_at,
            "lastUpdatedAt": self.updated_at,
            "ttlMs": self.ttl_ms,
            "pollIntervalMs": self.poll_ms,
        }
        if self.message:
            said["statusMessage"] = self.message
        return said

    def whole(self) -> Json:
        """What `tasks/get` and notifications say."""
        details = {
            "inputRequests": self.input_requests,
            "result": self.result,
            "error": self.error,
        }
        return self.handle() | {key: given for key, given in details.items() if given is not None}

    def tells_the_same(self, other: Task | None) -> bool:
        """Whether nothing but times tells this from `other`: then nobody is notified."""
        return other is not None and (self.status, self.message, self.input_requests) == (
            other.status,
            other.message,
            other.input_requests,
        )


class TaskSource(Protocol):
    """Whose tasks they are. `ctx` is the request's; each verb looks whose request it is.

    `get`, `update` and `cancel` raise `NoSuchTask`, with nothing to tell unknown, expired and foreign ids apart.
    """

    @property
    def required(self) -> Collection[str]:
        """The tools that answer by a task only: who does not declare the extension is refused."""
        ...

    async def begin(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> Task | HandlerResult:
        """Answer a tool call of a client that takes tasks: with a task that `get` finds already, or with a result.

        `call_next(ctx)` calls the tool with `params` as they then are.
        """
        ...

    async def get(self, task_id: str, ctx: Context) -> Task:
        """The task as it is."""
        ...

    async def update(self, task_id: str, responses: Mapping[str, Json], ctx: Context) -> None:
        """Take answers by the keys of `input_requests`; what is not asked (any more) is passed over."""
        ...

    async def cancel(self, task_id: str, ctx: Context) -> None:
        """See to it that the task is cancelled, unless it is over. Need not wait until it is."""
        ...

    async def watch(
        self, task_ids: Sequence[str], ctx: Context, tell: Callable[[Task], Awaitable[None]]
    ) -> None:
        """Tell each of these tasks as it is, and again whenever it tells something new, until all are over or gone."""
        ...


class _TaskParams(BaseModel):
    model_config = ConfigDict(defer_build=True)  # most servers are never asked
    task_id: Annotated[str, Field(alias="taskId")]


class _UpdateParams(_TaskParams):
    input_responses: Annotated[dict[str, Json], Field(alias="inputResponses")]


class Tasks(Extension):
    """The extension, over a source of tasks. `listening` is to be one of the server's middlewares."""

    identifier = TASKS

    def __init__(self, source: TaskSource) -> None:
        self._source = source

    def methods(self) -> Sequence[MethodBinding]:
        """See `Extension.methods`."""
        return (
            MethodBinding("tasks/get", _TaskParams, self._get, VERSIONS),
            MethodBinding("tasks/update", _UpdateParams, self._update, VERSIONS),
            MethodBinding("tasks/cancel", _TaskParams, self._cancel, VERSIONS),
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> HandlerResult:
        """See `Extension.intercept_tool_call`."""
        if not _declared(ctx):
            if params.name in self._source.required:
                require_client_extension(ctx, TASKS)
            return await call_next(ctx)
        begun = await self._source.begin(params, ctx, call_next)
        return {"resultType": "task", **begun.handle()} if isinstance(begun, Task) else begun

    async def listening(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """A middleware: tells tasks on the streams of `subscriptions/listen` that ask for them."""
        if ctx.method != "subscriptions/listen" or ctx.protocol_version not in VERSIONS:
            return await call_next(ctx)
        # Here, because it is rarely asked for, and every server starts.
        from .task_listening import listen

        return await listen(self._source, ctx, call_next)

    async def _get(self, ctx: Context, params: _TaskParams) -> Json:
        _admit(ctx, params.task_id)
        try:
            return (await self._source.get(params.task_id, ctx)).whole()
        except NoSuchTask:
            raise _not_found() from None

    async def _update(self, ctx: Context, params: _UpdateParams) -> Json:
        _admit(ctx, params.task_id)
        try:
            await self._source.update(params.task_id, params.input_responses, ctx)
        except NoSuchTask:
            raise _not_found() from None
        return {}

    async def _cancel(self, ctx: Context, params: _TaskParams) -> Json:
        _admit(ctx, params.task_id)
        try:
            await self._source.cancel(params.task_id, ctx)
        except NoSuchTask:
            raise _not_found() from None
        return {}


def _declared(ctx: Context) -> bool:
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities else None
    return ctx.protocol_version in VERSIONS and TASKS in (declared or {})


def _admit(ctx: Context, task_id: str) -> None:
    """Refuse who has not declared the extension, and whose request was routed by another task's name."""
    require_client_extension(ctx, TASKS)
    headers = getattr(ctx.request, "headers", None)  # only HTTP has them
    if headers is not None and decode_header_value(headers.get(MCP_NAME_HEADER)) != task_id:
        raise MCPError(HEADER_MISMATCH, "The Mcp-Name header must be the request's taskId")


def _not_found() -> MCPError:
    return MCPError(INVALID_PARAMS, "Task not found: it never was, has expired, or is not yours")
