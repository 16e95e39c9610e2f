"""The tools that the official suite's tasks scenarios need, as tasks of this process: another `TaskSource` than ours.

They show that the extension is right whatever the tasks are. Nothing here is durable, as the suite asks for none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    TextContent,
)

from bilt_mcp.server.tasks import OVER, Context, Json, NoSuchTask, Task, Tasks, TaskStatus
from bilt_mcp.state import iso

ONLY_TASKS = frozenset(
    {"confirm_delete", "failing_job", "multi_input", "protocol_error_job", "test_tool_with_task"}
)
TTL_MS = 60_000
POLL_MS = 100


class Job:
    """One task and the work behind it."""

    def __init__(self, work: Callable[[Job], Awaitable[CallToolResult]]) -> None:
        self.task_id = str(uuid4())
        self.created_at = self.updated_at = round(time.time() * 1000)
        self.status: TaskStatus = "working"
        self.asked: dict[str, Json] = {}
        self.news = asyncio.Event()
        self._answers: dict[str, asyncio.Future[Json]] = {}
        self._result: Json | None = None
        self._error: Json | None = None
        self._work = asyncio.create_task(self._do(work))

    async def _do(self, work: Callable[[Job], Awaitable[CallToolResult]]) -> None:
        try:
            self._result = wire(await work(self))
            self._move("completed")
        except MCPError as error:
            self._error = {"code": error.error.code, "message": error.error.message}
            self._move("failed")
        except asyncio.CancelledError:
            self._move("cancelled")

    def _move(self, status: TaskStatus) -> None:
        self.status, self.updated_at = status, round(time.time() * 1000)
        self.news.set()
        self.news = asyncio.Event()

    async def ask(self, key: str, message: str, field: str, kind: str) -> Any:
        """What the client's user answers."""
        schema: Any = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
        params = ElicitRequestFormParams(message=message, requested_schema=schema)
        self.asked[key] = wire(ElicitRequest(params=params))
        self._answers[key] = asyncio.get_running_loop().create_future()
        self._move("input_required")
        return (ElicitResult.model_validate(await self._answers[key]).content or {}).get(field)

    def answer(self, responses: Mapping[str, Json]) -> None:
        for key in self.asked.keys() & responses.keys():
            del self.asked[key]
            self._answers[key].set_result(responses[key])
            self._move("input_required" if self.asked else "working")

    def cancel(self) -> None:
        if self.status not in OVER:
            self._work.cancel()

    def task(self) -> Task:
        return Task(
            task_id=self.task_id,
            status=self.status,
            created_at=iso(self.created_at),
            updated_at=iso(self.updated_at),
            ttl_ms=TTL_MS,
            poll_ms=POLL_MS,
            input_requests=dict(self.asked) if self.status == "input_required" else None,
            result=self._result,
            error=self._error,
        )


class FixtureTasks:
    """`TaskSource` of the suite's tools."""

    @property
    def required(self) -> frozenset[str]:
        return ONLY_TASKS

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    async def begin(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> Task | HandlerResult:
        given = params.arguments or {}
        if params.name == "test_tool_with_task" and not params.input_responses:
            return name_wanted()
        work = WORK.get(params.name)
        if work is None or given.get("seconds") == 0:
            return await call_next(ctx)
        job = Job(partial(work, params=params))
        self._jobs[job.task_id] = job
        return job.task()

    def _job(self, task_id: str) -> Job:
        if task_id not in self._jobs:
            raise NoSuchTask
        return self._jobs[task_id]

    async def get(self, task_id: str, ctx: Context) -> Task:
        return self._job(task_id).task()

    async def update(self, task_id: str, responses: Mapping[str, Json], ctx: Context) -> None:
        self._job(task_id).answer(responses)

    async def cancel(self, task_id: str, ctx: Context) -> None:
        self._job(task_id).cancel()

    async def watch(
        self, task_ids: Sequence[str], ctx: Context, tell: Callable[[Task], Awaitable[None]]
    ) -> None:
        (job,) = map(self._job, task_ids)  # the suite listens to none yet, our tests to one
        while True:
            news, task = job.news, job.task()
            await tell(task)
            if task.status in OVER:
                return
            await news.wait()


def wire(model: Any) -> Json:
    found: Json = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def text(said: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=said)], is_error=is_error)


def name_wanted() -> InputRequiredResult:
    schema: Any = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
    }
    asked = ElicitRequestFormParams(message="What is your name?", requested_schema=schema)
    return InputRequiredResult(input_requests={"user_name": ElicitRequest(params=asked)})


async def compute(_: Job, params: CallToolRequestParams) -> CallToolResult:
    given = params.arguments or {}
    await asyncio.sleep(given["seconds"])
    return text(f"{given.get('label', '')} computed for {given['seconds']} s")


async def fail(_: Job, params: CallToolRequestParams) -> CallToolResult:
    await asyncio.sleep(0.5)
    return text(f"{params.name} has failed.", is_error=True)


async def break_the_protocol(_: Job, params: CallToolRequestParams) -> CallToolResult:
    await asyncio.sleep(0.1)
    raise MCPError(INTERNAL_ERROR, f"{params.name} broke the protocol.")


async def confirm_delete(job: Job, params: CallToolRequestParams) -> CallToolResult:
    given = params.arguments or {}
    said = await job.ask("delete", f"Delete {given['filename']}?", "confirm", "boolean")
    return text(f"{given['filename']} {'deleted' if said else 'kept'}")


async def multi_input(job: Job, params: CallToolRequestParams) -> CallToolResult:
    name, sure = await asyncio.gather(
        job.ask("name", "Your name?", "name", "string"),
        job.ask("sure", "Are you sure?", "confirm", "boolean"),
    )
    return text(f"{params.name}: {name}, {sure}")


async def greet_by_name(_: Job, params: CallToolRequestParams) -> CallToolResult:
    await asyncio.sleep(0.1)
    answer = ElicitResult.model_validate((params.input_responses or {})["user_name"])
    return text(f"Hello, {(answer.content or {})['name']}!")


WORK: Mapping[str, Callable[..., Awaitable[CallToolResult]]] = {
    "slow_compute": compute,
    "failing_job": fail,
    "protocol_error_job": break_the_protocol,
    "confirm_delete": confirm_delete,
    "multi_input": multi_input,
    "test_tool_with_task": greet_by_name,
}


def task_server() -> MCPServer[Any]:
    """A server with the suite's tasks tools, on the extension as it is."""
    tasks = Tasks(FixtureTasks())
    server = MCPServer("task-fixtures", extensions=[tasks], middleware=[tasks.listening])

    @server.tool()
    def greet(name: str) -> str:
        return f"Hello, {name}!"

    @server.tool(structured_output=False)
    async def slow_compute(seconds: float, label: str = "") -> str:
        await asyncio.sleep(seconds)
        return f"{label} computed for {seconds} s"

    for name in sorted(ONLY_TASKS):
        server.add_tool(only_as_a_task(name), name=name, structured_output=False)
    assert callable(greet)
    assert callable(slow_compute)
    return server


def only_as_a_task(name: str) -> Callable[..., str]:
    if name == "confirm_delete":

        def asking(filename: str) -> str:
            raise AssertionError(f"{filename}: the extension calls no tool that must be a task")

        return asking

    def never() -> str:
        raise AssertionError("the extension calls no tool that must be a task")

    return never
