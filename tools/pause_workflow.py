"""`bilt_pause_workflow` (CONTRACT section 2)."""

from __future__ import annotations

from .arguments import Reason, SessionId
from .desk import ToolContext, caller_of, desk_of, key_of
from .gate import settled
from .registry import ToolSpec
from .results import PausedResult


async def bilt_pause_workflow(
    ctx: ToolContext, session_id: SessionId, reason: Reason = ""
) -> PausedResult:
    """Stop the workflow before its next step; the step that runs is finished first.

    Go on with bilt_resume_workflow. To stop what runs now use bilt_cancel_workflow.
    """
    desk = await desk_of(ctx)
    asked = desk.store.request_pause(
        desk.account, session_id, caller_of(ctx), reason or None, key_of(ctx)
    )
    workflow = await settled(desk, asked)
    return PausedResult(
        session_id=session_id,
        status=workflow.status.value,
        workflow_id=workflow.id,
        message="It pauses before its next step, if there is one. Wait for that with bilt_get_session, go on with "
        "bilt_resume_workflow.",
    )


TOOL = ToolSpec(
    bilt_pause_workflow,
    title="Pause a workflow",
    results=(PausedResult,),
    read_only=False,
    idempotent=True,
)
