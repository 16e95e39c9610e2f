"""Workflows as tasks: the id of a task is its workflow's, and the store is all that is kept of it.

So a task survives the client, this process and the worker, and whatever changes a workflow from elsewhere changes it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

import anyio
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import Context as MCPContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    ElicitResult,
)
from pydantic import TypeAdapter, ValidationError

from bilt_mcp.state import (
    CANCELLABLE,
    BiltError,
    CannotCancel,
    NothingToConfirm,
    PendingAction,
    Session,
    SessionNotFound,
    Status,
    StoreUnavailable,
    Workflow,
    WorkflowNotFound,
    iso,
)
from bilt_mcp.tools import (
    Decision,
    Desk,
    StartedResult,
    ToolContext,
    as_id,
    caller_of,
    can_ask,
    cancel,
    needs_worker,
    question,
    session_result,
    settled,
    success,
    user_of,
    wait_until,
)

from .tasks import OVER, Context, Json, NoSuchTask, Task, TaskStatus

log = logging.getLogger(__name__)

TOOL = "bilt_send_message"
FLAG = "wait_for_response"
"""A call of the tool with this argument would hold its answer, so it becomes a task."""

TTL_MS = 30 * 86_400_000
"""How long a workflow is a task, from its start. Longer than any build, and than a question to a person stays open.

After that it is a workflow like every other, for the tools. A fixed time needs no table, and nothing to clean up.
"""
MIN_POLL_MS, MAX_POLL_MS = 250, 5000
LONG_SECONDS = 3600.0
TROUBLE_SECONDS = 1.0

_BOOLEAN = TypeAdapter(bool)


class WorkflowTasks:
    """`tasks.TaskSource` over a server's store and engine."""

    required = frozenset[str]()

    async def begin(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> Task | HandlerResult:
        """See `TaskSource.begin`. The tool starts the workflow without waiting for it; what it refuses, it refuses."""
        if not _would_wait(params):
            return await call_next(ctx)
        params.arguments = {**(params.arguments or {}), FLAG: False}
        answer = await call_next(ctx)
        if not isinstance(answer, CallToolResult) or answer.is_error:
            return answer
        try:
            async with _at_desk(ctx) as desk:
                started_id = str(answer.structured_content["workflow_id"])
                workflow, _, task = await _look(desk, started_id, ctx)
        except (NoSuchTask, MCPError):
            return answer  # it has started all the same, and this says so
        # A repeated call may find it over: that is an answer, as it would be for who waits.
        return success(_started(workflow)) if task.status in OVER else task

    async def get(self, task_id: str, ctx: Context) -> Task:
        """See `TaskSource.get`."""
        async with _at_desk(ctx) as desk:
            return (await _look(desk, task_id, ctx))[2]

    async def update(self, task_id: str, responses: Mapping[str, Json], ctx: Context) -> None:
        """See `TaskSource.update`: takes a person's answer to the open gate.

        An agent alone cannot approve by it. `tasks/update` is a method of the protocol, which a client program sends,
        and no tool: a model has nothing to call. What the program sends is what its user answered to an elicitation,
        and it must show that to the user as any other; so only a request that declares elicitation is heard, as only
        such a one is asked. That is the trust that an elicitation within a tool call needs, and no more. What an agent
        does to a gate by tools (resume, confirm) is decided as always, and who answered is in the history.

        Of many answers the store takes the first. A later one, one to a gate that is over, and one by a key that was
        never asked change nothing and are no errors, as the extension wants it. A dismissed question stays open: it can
        be answered at a terminal, or by another client.
        """
        async with _at_desk(ctx) as desk:
            _, session = await _find(desk, task_id)
            gate = session.pending_action if session else None
            if session is None or gate is None or gate.action_id not in responses:
                return
            if not can_ask(_tool_context(ctx)):
                raise MCPError(
                    MISSING_REQUIRED_CLIENT_CAPABILITY,
                    "Only a client that can ask its user by elicitation may answer for the user",
                    {"requiredCapabilities": {"elicitation": {"form": {}}}},
                )
            said = _said(responses[gate.action_id])
            if said is not None:
                await _answer(desk, session, gate, said, ctx)

    async def cancel(self, task_id: str, ctx: Context) -> None:
        """See `TaskSource.cancel`: the workflow is cancelled for good, and the kill goes on after the answer."""
        async with _at_desk(ctx) as desk:
            workflow, _ = await _find(desk, task_id)
            if workflow.status not in CANCELLABLE:
                return
            by = caller_of(_tool_context(ctx))
            # The kill must begin also when the client has gone in this very moment; it may have ended by itself first.
            with anyio.CancelScope(shield=True), contextlib.suppress(CannotCancel):
                done = await cancel(desk, workflow.session_id, None, by, workflow_id=workflow.id)
                if isinstance(done, Workflow) and needs_worker(done):
                    await desk.engine.wake()

    async def watch(
        self, task_ids: Sequence[str], ctx: Context, tell: Callable[[Task], Awaitable[None]]
    ) -> None:
        """See `TaskSource.watch`. Sees what any process does, through the store."""
        async with _at_desk(ctx) as desk, anyio.create_task_group() as group:
            for task_id in task_ids:
                group.start_soon(_follow, desk, task_id, ctx, tell)


async def _follow(
    desk: Desk, task_id: str, ctx: Context, tell: Callable[[Task], Awaitable[None]]
) -> None:
    told: Task | None = None
    while True:
        try:
            _, session, task = await _look(desk, task_id, ctx)
            if not task.tells_the_same(told):
                told = task
                await tell(task)
            if session is None:
                return
            await wait_until(desk, session.id, _has_passed(session.revision), LONG_SECONDS)
        except (NoSuchTask, WorkflowNotFound, SessionNotFound):
            return
        except StoreUnavailable as error:
            log.warning("tasks: %s", error)
            await anyio.sleep(TROUBLE_SECONDS)


def _has_passed(revision: int) -> Callable[[Session], bool]:
    return lambda now: now.revision > revision


async def _look(desk: Desk, task_id: str, ctx: Context) -> tuple[Workflow, Session | None, Task]:
    """The task for the client of this request, and what `_find` finds."""
    workflow, session = await _find(desk, task_id)
    if session is not None and needs_worker(session):
        await desk.engine.wake(news=False)
    task = _task(workflow, session, desk)
    gate = session.pending_action if session else None
    # Who cannot ask a person is asked nothing: for him it goes on, and its message says where it is answered.
    if session is not None and gate is not None and can_ask(_tool_context(ctx)):
        project = await desk.store.project(desk.account, session.project_id)
        task = _asking(task, gate, question(project, session, gate))
    return workflow, session, task


@contextlib.asynccontextmanager
async def _at_desk(ctx: Context) -> AsyncGenerator[Desk]:
    """The desk of the server; what the store cannot do becomes an error of the protocol that says what to do."""
    try:
        yield await ctx.lifespan_context.desk()
    except WorkflowNotFound:
        raise NoSuchTask from None
    except BiltError as error:
        raise MCPError(INTERNAL_ERROR, error.message) from error


def _would_wait(params: CallToolRequestParams) -> bool:
    if params.name != TOOL:
        return False
    try:
        return _BOOLEAN.validate_python((params.arguments or {}).get(FLAG, False))
    except ValidationError:
        return False  # the tool tells what is wrong


async def _find(desk: Desk, task_id: str) -> tuple[Workflow, Session | None]:
    """The workflow, and while it is not final its session. Raises `NoSuchTask`."""
    if as_id(task_id) != task_id:
        raise NoSuchTask
    workflow = await desk.store.workflow(desk.account, task_id)
    session: Session | None = None
    if not workflow.final:
        session = await desk.store.session(desk.account, workflow.session_id)
        if session.workflow is None or session.workflow.id != workflow.id:
            # Over, and the next one started, between two looks.
            workflow, session = await desk.store.workflow(desk.account, task_id), None
        else:
            workflow = session.workflow
    if time.time() * 1000 >= workflow.created_at + _ttl(desk, workflow):
        raise NoSuchTask
    return workflow, None if workflow.final else session


def _ttl(desk: Desk, workflow: Workflow) -> int:
    """Milliseconds from its start. What the store keeps for a shorter time than `TTL_MS` goes sooner."""
    if workflow.finished_at is not None:
        with contextlib.suppress(StoreUnavailable):
            keep = desk.store.settings().keep_milliseconds
            if keep is not None:
                return min(TTL_MS, workflow.finished_at - workflow.created_at + keep)
    return TTL_MS


def _task(workflow: Workflow, session: Session | None, desk: Desk) -> Task:
    """The task as it is, but for the question that it may have."""
    task = Task(
        task_id=workflow.id,
        status=_status(workflow),
        created_at=iso(workflow.created_at),
        updated_at=iso(session.updated_at if session else _ended_at(workflow)),
        ttl_ms=_ttl(desk, workflow),
        poll_ms=_poll_ms(workflow),
        message=_message(workflow, session, desk),
    )
    if task.status != "completed":
        return task
    return task._replace(result=_wire(success(_started(workflow))))


def _asking(task: Task, gate: PendingAction, asked: str) -> Task:
    return task._replace(
        status="input_required",
        message=f"Waiting for a person to confirm step {gate.step}.",
        input_requests={gate.action_id: _form(asked)},
    )


def _status(workflow: Workflow) -> TaskStatus:
    if workflow.status is Status.CANCELLED:
        return "cancelled"
    # A failed workflow is an answer of the tool, as it is for who waits; only errors of JSON-RPC are failed tasks.
    return "completed" if workflow.final else "working"


def _ended_at(workflow: Workflow) -> int:
    return workflow.finished_at or workflow.created_at


def _poll_ms(workflow: Workflow) -> int:
    """A tenth of its age: so the end is learned of a tenth late at most, and long builds are asked for seldom."""
    end = workflow.finished_at or time.time() * 1000
    return round(min(MAX_POLL_MS, max(MIN_POLL_MS, (end - workflow.created_at) / 10)))


def _message(workflow: Workflow, session: Session | None, desk: Desk) -> str:
    if workflow.status is Status.PENDING:
        return "Accepted and durable; it starts when a worker is free."
    if workflow.status is Status.CANCELLING:
        return "Being cancelled; processes are being killed."
    seen = session or Session(workflow.session_id, "", 0, 0, 0, workflow)
    told = session_result(seen, desk.terminal)
    if workflow.status is Status.RUNNING and told.progress is not None:
        return f"{told.progress.percent} %, {told.progress.message}"
    return told.message


def _started(workflow: Workflow) -> StartedResult:
    return StartedResult(
        session_id=workflow.session_id,
        workflow_started=True,
        subscriber_count=0,
        workflow_id=workflow.id,
        status=workflow.status.value,
    )


def _wire(result: CallToolResult) -> Json:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


def _form(asked: str) -> Json:
    """The same form that a tool has a person fill in."""
    schema = Decision.model_json_schema()
    return {
        "method": "elicitation/create",
        "params": {
            "mode": "form",
            "message": asked,
            "requestedSchema": {key: schema[key] for key in ("type", "properties", "required")},
        },
    }


def _said(response: Json) -> bool | None:
    """Yes, no, or nothing. Raises `MCPError` or `ValidationError` for what is no answer to the form."""
    answer = ElicitResult.model_validate(response)
    if answer.action != "accept":
        return False if answer.action == "decline" else None
    confirm = (answer.content or {}).get("confirm")
    if not isinstance(confirm, bool):
        raise MCPError(INVALID_PARAMS, "An accepted answer has content.confirm, true or false")
    return confirm


async def _answer(
    desk: Desk, session: Session, gate: PendingAction, said: bool, ctx: Context
) -> None:
    verb = desk.store.confirm if said else desk.store.decline
    by = user_of(_tool_context(ctx), "mcp task")
    # Somebody may have been first: another answer, a cancel, or the clock.
    with contextlib.suppress(NothingToConfirm):
        await settled(desk, verb(desk.account, session.id, gate.action_id, by))


def _tool_context(ctx: Context) -> ToolContext:
    return MCPContext(request_context=ctx)
