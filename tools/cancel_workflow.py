"""`bilt_cancel_workflow` (CONTRACT section 2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bilt_mcp.state import DeployState, Stopped, Workflow, iso, iso_now

from .arguments import Reason, SessionId
from .cancelling import VERIFY_SECONDS, Unrecorded, cancel_and_verify
from .desk import Desk, ToolContext, caller_of, desk_of, key_of
from .registry import ToolSpec
from .results import CancelledResult, DryRunResult, stopped_result


async def bilt_cancel_workflow(
    ctx: ToolContext,
    session_id: SessionId,
    reason: Reason = "",
    dry_run: Annotated[
        bool, Field(description="Only tell what would stop; change nothing.")
    ] = False,
) -> CancelledResult | DryRunResult:
    """Stop the session's workflow for good.

    Use it when the user wants a build or deployment stopped; for important ones ask the user first. It answers when
    every process that the workflow had started is verified dead (stopped.verified); then nothing of it can deploy,
    complete or come back. Partial changes may remain. If it is over already this
    fails with "Cannot cancel workflow".
    """
    desk = await desk_of(ctx)
    if dry_run and (seen := await _dry_run(desk, session_id)) is not None:
        return seen
    outcome = await cancel_and_verify(desk, session_id, reason or None, caller_of(ctx), key_of(ctx))
    if isinstance(outcome, Unrecorded):
        return _unrecorded_receipt(session_id, reason or None, outcome)
    return _receipt(outcome)


def _unrecorded_receipt(
    session_id: str, reason: str | None, outcome: Unrecorded
) -> CancelledResult:
    """The answer when everything was killed first and the store could not say so yet."""
    halted = outcome.halted
    done = "Stopped; nothing of it is alive" if halted.stopped.verified else "Being killed"
    return CancelledResult(
        session_id=session_id,
        status="cancelling",
        cancelled_at=iso_now(),
        message=(
            f"{done}, but that is not recorded yet: {outcome.told[:300]} It is recorded as soon as the store "
            "works; look with bilt_get_session."
        ),
        workflow_id=halted.workflow_id,
        reason=reason,
        stopped=stopped_result(halted.stopped),
    )


def _receipt(workflow: Workflow) -> CancelledResult:
    stopped = workflow.stopped or Stopped(
        False, 0, 0, VERIFY_SECONDS * 1000, workflow.step, workflow.deploy
    )
    when = workflow.finished_at or workflow.cancel_requested_at or workflow.created_at
    return CancelledResult(
        session_id=workflow.session_id,
        status="cancelled" if workflow.final else "cancelling",
        cancelled_at=iso(when),
        message=_told(workflow, stopped),
        workflow_id=workflow.id,
        reason=workflow.cancel_reason,
        stopped=stopped_result(stopped),
    )


def _told(workflow: Workflow, stopped: Stopped) -> str:
    if not workflow.final:
        return (
            "Cancelled, but not everything could be verified dead within 10 s; the kill goes on. Call "
            "bilt_cancel_workflow again to wait for the receipt."
        )
    deploy = {
        DeployState.NOT_STARTED: "Nothing was deployed.",
        DeployState.INTERRUPTED: "A deploy step was interrupted: look what it has done.",
        DeployState.DONE: "A deploy step had already been done.",
    }[stopped.deploy]
    return (
        f"Workflow cancelled; nothing of it is alive. {deploy} Start again with bilt_send_message."
    )


async def _dry_run(desk: Desk, session_id: str) -> DryRunResult | None:
    """What a cancel would do, or None where it would fail: then let it fail, which changes nothing either."""
    session = await desk.store.session(desk.account, session_id)
    workflow = session.workflow
    if workflow is None or workflow.final:
        return None
    done = await desk.store.steps_done(desk.account, session_id)
    return DryRunResult(
        would_stop=[workflow.step] if workflow.step else [],
        steps_done=list(done),
        deploy=workflow.deploy.value,
        status=workflow.status.value,
    )


TOOL = ToolSpec(
    bilt_cancel_workflow,
    title="Stop a workflow",
    results=(CancelledResult, DryRunResult),
    read_only=False,
    destructive=True,
    idempotent=True,
)
