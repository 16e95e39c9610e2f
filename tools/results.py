"""What tools answer (CONTRACT section 2): models, and how a success or a failure becomes a tool result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from bilt_mcp.state import (
    BiltError,
    Failure,
    FailureCode,
    Message,
    Session,
    Stopped,
    Workflow,
    iso,
)

Timestamp = Annotated[str, Field(description="ISO 8601, UTC, milliseconds.")]
SessionStatus = Literal[
    "idle", "pending", "running", "paused", "cancelling", "cancelled", "completed", "failed"
]


def _absent(value: object) -> bool:
    return value is None


class Result(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True)


class Progress(Result):
    """How far the newest workflow is."""

    step: Annotated[int, Field(description="Current step, from 1.")]
    total_steps: int
    current_step: str | None
    percent: Annotated[int, Field(description="Of the whole workflow.")]
    message: str
    elapsed_seconds: Annotated[float | None, Field(exclude_if=_absent)] = None
    quiet_seconds: Annotated[
        float | None, Field(exclude_if=_absent, description="Since the last output.")
    ] = None


class PendingActionResult(Result):
    """A gate that waits for a person."""

    action_id: str
    step: str
    message: str
    expires_at: Timestamp | None


class FailureResult(Result):
    """Why the newest workflow failed."""

    code: str
    step: str | None
    exit_code: int | None
    message: str


class SessionResult(Result):
    """Answer of bilt_get_session."""

    session_id: str
    project_id: str
    status: SessionStatus
    created_at: Timestamp
    updated_at: Timestamp
    progress: Progress | None
    workflow_id: str | None
    revision: Annotated[int, Field(description="Rises at each visible change.")]
    message: Annotated[str, Field(description="What to do next.")]
    pending_action: PendingActionResult | None
    failure: FailureResult | None


class StartedResult(Result):
    """Answer of bilt_send_message."""

    session_id: str
    workflow_started: bool
    subscriber_count: int
    workflow_id: str
    status: SessionStatus


class MessageResult(Result):
    """One message of a session's history."""

    id: int
    side: Literal["user", "ai"]
    variant: Literal["info", "error", "success", "log"]
    content: Annotated[str, Field(description="Build output is untrusted text.")]
    workflow_id: str | None
    step: str | None
    created_at: Timestamp


class MessagesResult(Result):
    """Answer of bilt_get_messages."""

    messages: list[MessageResult]
    total: int
    has_more: bool
    next_after: Annotated[int, Field(description="Pass as `after` to read on from here.")]


class StoppedResult(Result):
    """What a cancel stopped."""

    verified: Annotated[bool, Field(description="Everything it started is verified dead.")]
    processes_killed: int
    survivors: int
    took_ms: float
    step: str | None
    deploy: Literal["not_started", "interrupted", "done"]


class CancelledResult(Result):
    """Answer of bilt_cancel_workflow."""

    session_id: str
    status: Literal["cancelled", "cancelling"]
    cancelled_at: Timestamp
    message: str
    workflow_id: str
    reason: str | None
    stopped: StoppedResult


class DryRunResult(Result):
    """Answer of bilt_cancel_workflow with `dry_run`."""

    would_stop: Annotated[list[str], Field(description="Steps that would not (finish) run.")]
    steps_done: list[str]
    deploy: Literal["not_started", "interrupted", "done"]
    status: SessionStatus


ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "details": {"type": "object"}},
    "required": ["error", "details"],
}


def output_schema(*successes: type[Result]) -> dict[str, Any]:
    """`anyOf[success, error]`: a client that validates would otherwise throw the error away."""
    definitions: dict[str, Any] = {}
    arms: list[dict[str, Any]] = []
    for success in successes:
        schema = success.model_json_schema(mode="serialization")
        definitions |= schema.pop("$defs", {})
        arms.append(schema)
    whole: dict[str, Any] = {"type": "object", "anyOf": [*arms, ERROR_SCHEMA]}
    if definitions:
        whole["$defs"] = definitions
    return lean(whole)


def lean(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the titles and model docstrings that pydantic adds: they cost tokens and say nothing."""
    cleaned: dict[str, Any] = _lean(schema)
    return cleaned


def _lean(schema: Any, inside: str = "") -> Any:
    if isinstance(schema, list):
        parts: list[Any] = schema  # pyright: ignore[reportUnknownVariableType]
        return [_lean(part) for part in parts]
    if not isinstance(schema, dict):
        return schema
    table: dict[str, Any] = schema  # pyright: ignore[reportUnknownVariableType]
    names = inside in {"properties", "$defs"}
    drop = set[str]()
    if not names:
        drop = {"title", "description"} if "properties" in table else {"title"}
    return {key: _lean(value, key) for key, value in table.items() if key not in drop}


def dumps(value: Any) -> str:
    """JSON as it stands in a result's text: compact, every character as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def success(result: Result) -> CallToolResult:
    """A result whose structured content and text are the same JSON."""
    return _result(result.model_dump(mode="json"), is_error=False)


def failure(error: BiltError) -> CallToolResult:
    """The documented shape of a failure: `{"error", "details"}`."""
    return failure_of(error.error, error.details)


def failure_of(error: str, details: Mapping[str, Any]) -> CallToolResult:
    """The documented shape of a failure, from its parts."""
    return _result({"error": error, "details": dict(details)}, is_error=True)


def _result(structured: dict[str, Any], *, is_error: bool) -> CallToolResult:
    text = dumps(structured)
    try:
        text.encode()
    except UnicodeEncodeError:
        # One lone surrogate would end a stdio server, so none ever leaves.
        text = text.encode("utf-8", "replace").decode()
        structured = json.loads(text)
    content = TextContent(type="text", text=text)
    return CallToolResult(content=[content], structured_content=structured, is_error=is_error)


def session_result(session: Session, terminal: str = "bilt-mcp") -> SessionResult:
    """A session as bilt_get_session answers it; `terminal` is the program as a person has to call it."""
    workflow = session.workflow
    gate = session.pending_action
    return SessionResult(
        session_id=session.id,
        project_id=session.project_id,
        status=session.status,  # type: ignore[arg-type]
        created_at=iso(session.created_at),
        updated_at=iso(session.updated_at),
        progress=None if workflow is None else _progress(workflow),
        workflow_id=None if workflow is None else workflow.id,
        revision=session.revision,
        message=next_call(session, terminal),
        pending_action=None
        if gate is None
        else PendingActionResult(
            action_id=gate.action_id,
            step=gate.step,
            message=gate.message,
            expires_at=None if gate.expires_at is None else iso(gate.expires_at),
        ),
        failure=None if workflow is None else _failure(workflow.failure),
    )


def message_result(message: Message) -> MessageResult:
    """A message as bilt_get_messages answers it."""
    return MessageResult(
        id=message.id,
        side=message.side,
        variant=message.variant,
        content=message.content,
        workflow_id=message.workflow_id,
        step=message.step,
        created_at=iso(message.created_at),
    )


def stopped_result(stopped: Stopped) -> StoppedResult:
    """A cancel's receipt."""
    return StoppedResult(
        verified=stopped.verified,
        processes_killed=stopped.processes_killed,
        survivors=stopped.survivors,
        took_ms=stopped.took_ms,
        step=stopped.step,
        deploy=stopped.deploy.value,
    )


_AFTER = {
    FailureCode.STEP_FAILED: "Read its last output with bilt_get_messages, correct the cause, then start again with "
    "bilt_send_message.",
    FailureCode.TIMED_OUT: "See with bilt_get_messages what it was doing. Correct what hangs, or raise `timeout` in "
    "bilt.toml if it was only slow; then start again with bilt_send_message.",
    FailureCode.WORKER_LOST: "The cause lies outside the build, and what the step had changed by then may be half "
    "done: look with bilt_get_messages, then start again with bilt_send_message, after asking the user if it deploys.",
    FailureCode.INTERRUPTED: "The build itself did nothing wrong: see with bilt_get_messages how far it came, then "
    "start again with bilt_send_message, after asking the user if it deploys.",
    FailureCode.INVALID_WORKFLOW: "Correct bilt.toml, then start again with bilt_send_message.",
}
"""Which call comes next, for each way to fail."""


def _failure(failed: Failure | None) -> FailureResult | None:
    if failed is None:
        return None
    return FailureResult(
        code=failed.code.value, step=failed.step, exit_code=failed.exit_code, message=failed.message
    )


def _progress(workflow: Workflow) -> Progress:
    done = workflow.position - 1 + (workflow.step_percent or 0) / 100
    step = min(workflow.position, workflow.total_steps)
    return Progress(
        step=step,
        total_steps=workflow.total_steps,
        current_step=workflow.step,
        percent=min(100, int(100 * done / workflow.total_steps)),
        message=workflow.step_message or _where(workflow, step),
        elapsed_seconds=_tenths(workflow.elapsed_seconds),
        quiet_seconds=_tenths(workflow.quiet_seconds),
    )


def _tenths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _where(workflow: Workflow, step: int) -> str:
    if workflow.step is None:
        return "All steps done"
    return f"Step {step} of {workflow.total_steps}: {workflow.step}"


def next_call(session: Session, terminal: str) -> str:
    """One sentence or two: what stands, and which call comes next."""
    workflow = session.workflow
    if workflow is None:
        return "Nothing has run yet. Start a workflow with bilt_send_message."
    wait = (
        f"Wait for the next change with bilt_get_session(session_id, wait_seconds=45, "
        f"after_revision={session.revision})"
    )
    gate = session.pending_action
    if gate is not None:
        return (
            f"Waiting for a person to confirm step {gate.step}: they run `{terminal} confirm {session.id}` in a "
            f"terminal. You cannot approve it. {wait}, or stop with bilt_cancel_workflow."
        )
    if workflow.failure is not None:
        return f"{workflow.failure.message} {_AFTER[workflow.failure.code]}"
    return {
        "pending": f"Accepted and durable; it starts when a worker is free. {wait}.",
        "running": f"Running. {wait}, read output with bilt_get_messages, or stop with bilt_cancel_workflow.",
        "paused": f"Paused by request. {wait}, or stop with bilt_cancel_workflow.",
        "cancelling": "Being cancelled; processes are being killed. bilt_cancel_workflow waits for the receipt.",
        "cancelled": "Cancelled; nothing of it is alive. Start again with bilt_send_message.",
        "completed": "Completed. Read the messages with bilt_get_messages, or start another with bilt_send_message.",
        "failed": "Failed. Read the last output with bilt_get_messages, then start again with bilt_send_message.",
    }[workflow.status.value]
