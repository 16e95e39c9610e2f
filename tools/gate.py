"""A gate as a person meets it: the question, and what an agent is told who cannot put it to one (CONTRACT section 2).

What the person reads is made of the project's own words and of facts of the workflow. Nothing that an agent or a build
wrote is in it: either could say that the question is harmless.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated

import anyio
from mcp.server.mcpserver import Elicit
from mcp_types import ClientCapabilities
from pydantic import BaseModel, Field

from bilt_mcp.state import (
    ConfirmationRequired,
    DeployState,
    NothingToConfirm,
    PendingAction,
    Project,
    Session,
    Workflow,
    iso,
)

from .desk import Desk, ToolContext, desk_of
from .results import ActionResult

_MOST_OF_A_PATH = 200


class Decision(BaseModel):
    """What a person fills in."""

    confirm: Annotated[bool, Field(title="Go on", description="Yes: run this step now.")]


def question(project: Project, session: Session, gate: PendingAction) -> str:
    """What a person is asked; the same for the same gate, however often it is asked."""
    workflow = session.workflow
    assert workflow is not None
    kind = "deploy step" if gate.deploy else "step"
    lines = [
        f"{kind.capitalize()} {gate.step} ({gate.position} of {workflow.total_steps}) of project "
        f"{_shown(project.name)} asks:",
        gate.message,
        f"Yes runs it. No {consequence(gate)}.",
        f"Folder: {_shown(project.root)}",
        f"Workflow: {workflow.id}, since {iso(workflow.created_at)}",
    ]
    if gate.expires_at is not None:
        lines.append(f"Without an answer by {iso(gate.expires_at)} it counts as no.")
    return "\n".join(lines)


def consequence(gate: PendingAction) -> str:
    """What a no does."""
    return "goes on without it" if gate.on_decline == "skip" else "cancels the workflow"


def _shown(text: str) -> str:
    return "".join(ch if ch.isprintable() else "?" for ch in text)[:_MOST_OF_A_PATH]


def open_gate(session: Session, action_id: str) -> PendingAction:
    """The session's gate, when it is this one. Raises `NothingToConfirm`."""
    gate = session.pending_action
    if gate is None or gate.action_id != action_id:
        raise NothingToConfirm(
            f"Action {action_id} is not open in this session, which is {session.status}: it was answered, or never "
            "was. Look with bilt_get_session.",
            current_status=session.status,
        )
    return gate


def only_a_person(
    desk: Desk, session: Session, gate: PendingAction, why: str
) -> ConfirmationRequired:
    """What an agent is told that cannot have the question answered."""
    command = f"{desk.terminal} confirm {session.id}"
    return ConfirmationRequired(
        f"{why} Ask the user to run `{command}` in a terminal; wait for the answer with "
        f"bilt_get_session(session_id, wait_seconds=45, after_revision={session.revision}). "
        f"bilt_cancel_action says no, which {consequence(gate)}.",
        action_id=gate.action_id,
        step=gate.step,
        question=gate.message,
        command=command,
    )


def can_ask(ctx: ToolContext) -> bool:
    """Whether the client can put a question to its user on this very request."""
    said: ClientCapabilities | None = ctx.client_capabilities
    elicitation = None if said is None else said.elicitation
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    modern = ctx.protocol_version is not None and ctx.protocol_version >= "2026-07-28"
    return modern or ctx.session.can_send_request


async def ask(ctx: ToolContext, session_id: str, action_id: str) -> Elicit[Decision]:
    """The question about an open gate. Raises what the tool answers when nobody can be asked."""
    desk = await desk_of(ctx)
    session = await desk.store.session(desk.account, session_id)
    gate = open_gate(session, action_id)
    if not can_ask(ctx):
        why = "Only a person may confirm, and this client cannot ask one."
        raise only_a_person(desk, session, gate, why)
    project = await desk.store.project(desk.account, session.project_id)
    return Elicit(question(project, session, gate), Decision)


async def after_answer(desk: Desk, workflow: Workflow) -> None:
    """See to what an answer leads to: the workflow goes on, or nothing of it is kept but its history."""
    if workflow.final:
        desk.engine.forget(workflow.id)
    else:
        await desk.engine.wake()


async def settled(desk: Desk, decision: Awaitable[Workflow]) -> Workflow:
    """What was decided, and seen to, also when the client has gone in this very moment."""
    workflow: Workflow | None = None
    with anyio.CancelScope(shield=True):
        workflow = await decision
        await after_answer(desk, workflow)
    assert workflow is not None
    return workflow


def answered(action_id: str, workflow: Workflow, *, yes: bool, said: str) -> ActionResult:
    """What an agent is told of an answer."""
    return ActionResult(
        session_id=workflow.session_id,
        action_id=action_id,
        answer="confirmed" if yes else "declined",
        status=workflow.status.value,
        workflow_id=workflow.id,
        message=f"{said} {_outcome(workflow)}",
    )


def _outcome(workflow: Workflow) -> str:
    """What stands after an answer, and which call comes next."""
    if not workflow.final:
        return "The workflow goes on. Wait for its next change with bilt_get_session."
    deploy = {
        DeployState.NOT_STARTED: "Nothing was deployed.",
        DeployState.INTERRUPTED: "An earlier deploy step was interrupted.",
        DeployState.DONE: "An earlier deploy step had been done.",
    }[workflow.deploy]
    return f"The workflow is cancelled. {deploy} Start again with bilt_send_message."
