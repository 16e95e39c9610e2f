"""`bilt_cancel_action` (CONTRACT section 2): say no to a gate. That needs no person: it stops, or leaves out."""

from __future__ import annotations

from .arguments import ActionId, Reason, SessionId
from .desk import ToolContext, caller_of, desk_of, key_of
from .gate import answered, settled
from .registry import ToolSpec
from .results import ActionResult


async def bilt_cancel_action(
    ctx: ToolContext, session_id: SessionId, action_id: ActionId, reason: Reason = ""
) -> ActionResult:
    """Say no to the step that waits (pending_action): it will not run.

    The workflow is then cancelled, or goes on without the step where bilt.toml says so.
    """
    desk = await desk_of(ctx)
    no = desk.store.decline(
        desk.account, session_id, action_id, caller_of(ctx), reason or None, key_of(ctx)
    )
    workflow = await settled(desk, no)
    return answered(action_id, workflow, yes=False, said="The step will not run.")


TOOL = ToolSpec(
    bilt_cancel_action,
    title="Decline a step",
    results=(ActionResult,),
    read_only=False,
    destructive=True,
    idempotent=False,
)
