"""`bilt_confirm_action` (CONTRACT section 2): the person decides, the client asks, the agent only wishes."""

from __future__ import annotations

from typing import Annotated

from mcp.server.elicitation import AcceptedElicitation, CancelledElicitation, ElicitationResult
from mcp.server.mcpserver import Resolve

from .arguments import ActionId, SessionId
from .desk import ToolContext, desk_of, user_of
from .gate import Decision, answered, ask, only_a_person, open_gate, settled
from .registry import ToolSpec
from .results import ActionResult


async def bilt_confirm_action(
    ctx: ToolContext,
    session_id: SessionId,
    action_id: ActionId,
    said: Annotated[ElicitationResult[Decision], Resolve(ask)],
) -> ActionResult:
    """Have the user asked whether the step that waits (pending_action) may run.

    Only the user can answer; you cannot approve. Where the client cannot ask, this fails with "Confirmation required"
    and the command that the user can run.
    """
    desk = await desk_of(ctx)
    by = user_of(ctx, "mcp elicitation")
    if isinstance(said, CancelledElicitation):
        session = await desk.store.session(desk.account, session_id)
        gate = open_gate(session, action_id)
        raise only_a_person(
            desk, session, gate, "The user closed the question without an answer; it stays open."
        )
    yes = isinstance(said, AcceptedElicitation) and said.data.confirm
    answer = desk.store.confirm if yes else desk.store.decline
    workflow = await settled(desk, answer(desk.account, session_id, action_id, by))
    told = f"The user said {'yes' if yes else 'no'}."
    return answered(action_id, workflow, yes=yes, said=told)


TOOL = ToolSpec(
    bilt_confirm_action,
    title="Have the user confirm a step",
    results=(ActionResult,),
    read_only=False,
    destructive=True,
    idempotent=False,
    open_world=True,
)
