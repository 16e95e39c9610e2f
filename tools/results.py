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
    Message,
    Project,
    Session,
    Stopped,
    Workflow,
    iso,
    iso_or_none,
)

from .next_call import next_call

Timestamp = str
"""ISO 8601, UTC, milliseconds."""
SessionStatus = Literal[
    "idle", "pending", "running", "paused", "cancelling", "cancelled", "completed", "failed"
]


def _absent(value: object) -> bool:
    return value is None


def _nothing(value: object) -> bool:
    return not value


class Result(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True)


class Progress(Result):
    """How far the newest workflow is."""

    step: int
    """The current one, from 1."""
    total_steps: int
    current_step: str | None
    percent: int
    """Of the whole workflow."""
    message: str
    elapsed_seconds: Annotated[float | None, Field(exclude_if=_absent)] = None
    quiet_seconds: Annotated[float | None, Field(exclude_if=_absent)] = None
    """Since the last output."""


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
    revision: int
    """Rises at each visible change."""
    message: str
    """What to do next."""
    pending_action: PendingActionResult | None
    failure: FailureResult | None


class StartedResult(Result):
    """Answer of bilt_send_message."""

    session_id: str
    workflow_started: bool
    subscriber_count: int
    workflow_id: str
    status: str


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
    next_after: int
    """Pass as `after` to read on from here."""
    # Only where they say something. Factories, because a default would be published.
    next_before: Annotated[int, Field(default_factory=int, exclude_if=_nothing)]
    total_at_least: Annotated[bool, Field(default_factory=bool, exclude_if=_nothing)]


class StoppedResult(Result):
    """What a cancel stopped."""

    verified: bool
    """Everything it started is verified dead."""
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

    would_stop: list[str]
    """Steps that run and would be stopped."""
    steps_done: list[str]
    deploy: Literal["not_started", "interrupted", "done"]
    status: str


class PausedResult(Result):
    """Answer of bilt_pause_workflow."""

    session_id: str
    status: str
    workflow_id: str
    message: str


class ResumedResult(Result):
    """Answer of bilt_resume_workflow."""

    session_id: str
    status: str
    resumed_at: Timestamp
    message: str


class ActionResult(Result):
    """Answer of bilt_confirm_action and bilt_cancel_action."""

    session_id: str
    action_id: str
    answer: Literal["confirmed", "declined"]
    status: str
    workflow_id: str
    message: str


class ProjectResult(Result):
    """Answer of bilt_get_project and bilt_create_project."""

    id: str
    name: str
    description: str
    visibility: Literal["public", "private"]
    created_at: Timestamp
    updated_at: Timestamp
    folder: str


class ProjectsResult(Result):
    """Answer of bilt_list_projects."""

    projects: list[ProjectResult]


def dumps(value: Any) -> str:
    """JSON as it stands in a result's text: compact, every character as it is."""
    return _AS_JSON.encode(value)


_AS_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


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
            expires_at=iso_or_none(gate.expires_at),
        ),
        failure=None if workflow is None else _failure(workflow.failure),
    )


def project_result(project: Project) -> ProjectResult:
    """A project as bilt_get_project answers it."""
    return ProjectResult(
        id=project.id,
        name=project.name,
        description=project.description,
        visibility=project.visibility,
        created_at=iso(project.created_at),
        updated_at=iso(project.updated_at),
        folder=project.root,
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
