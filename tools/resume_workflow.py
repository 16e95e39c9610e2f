"""`bilt_resume_workflow` (CONTRACT section 2)."""

from __future__ import annotations

from bilt_mcp.state import ConfirmationRequired, iso_now

from .arguments import SessionId
from .desk import ToolContext, caller_of, desk_of, key_of
from .gate import only_a_person, settled
from .registry import ToolSpec
from .results import ResumedResult


async def bilt_resume_workflow(ctx: ToolContext, session_id: SessionId) -> ResumedResult:
    """Go on with a workflow that bilt_pause_workflow has paused.

    A step that waits for a person is not resumed: see bilt_confirm_action.
    """
    desk = await desk_of(ctx)
    try:
        resumed = desk.store.resume(desk.account, session_id, caller_of(ctx), key_of(ctx))
        workflow = await settled(desk, resumed)
    except ConfirmationRequired as refused:
        session = await desk.store.session(desk.account, session_id)
        gate = session.pending_action
        if gate is None:
            raise
        why = "Resuming is not approving: the step waits for a person. bilt_confirm_action asks."
        raise only_a_person(desk, session, gate, why) from refused
    return ResumedResult(
        session_id=session_id,
        status=workflow.status.value,
        resumed_at=iso_now(),
        message="The workflow goes on. Wait for its next change with bilt_get_session.",
    )


TOOL = ToolSpec(
    bilt_resume_workflow,
    title="Resume a workflow",
    results=(ResumedResult,),
    read_only=False,
    idempotent=False,
    open_world=True,
)
