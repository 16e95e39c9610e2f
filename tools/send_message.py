"""`bilt_send_message` (CONTRACT section 2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .arguments import SessionId, Text
from .desk import ToolContext, caller_of, desk_of, key_of
from .registry import ToolSpec
from .results import StartedResult
from .starting import start_workflow
from .waiting import Beat, is_answered, wait_until

WAIT_SECONDS = 300.0


async def bilt_send_message(
    ctx: ToolContext,
    session_id: SessionId,
    message: Annotated[
        Text,
        Field(
            min_length=1, max_length=5000, description="What to build, test or deploy, in words."
        ),
    ],
    wait_for_response: Annotated[
        bool,
        Field(description="Hold the answer until the workflow ends or pauses, 300 s at most."),
    ] = False,
    idempotency_key: Annotated[
        Text,
        Field(
            min_length=1,
            max_length=128,
            description="Any new string. A call repeated with it starts nothing twice, and waits on.",
        ),
    ] = "",
) -> StartedResult:
    """Start a workflow: run the steps of the project's bilt.toml that apply to the message, in the background.

    Use it when the user wants something built, tested or deployed. It runs on when you disconnect: watch it with
    bilt_get_session, read its output with bilt_get_messages, stop it with bilt_cancel_workflow. One at a time: while
    one is active this fails with "Workflow already active".
    """
    desk = await desk_of(ctx)
    key = idempotency_key or key_of(ctx)
    started = await start_workflow(desk, session_id, message, key, caller_of(ctx))
    workflow_id, status = started.workflow_id, started.status
    if wait_for_response:
        await wait_until(
            desk,
            session_id,
            lambda now: is_answered(now, workflow_id),
            WAIT_SECONDS,
            beat=Beat(ctx),
        )
        # By its own id: somebody may have started another one meanwhile.
        status = (await desk.store.workflow(desk.account, workflow_id)).status
    return StartedResult(
        session_id=session_id,
        workflow_started=True,
        subscriber_count=desk.listeners(session_id),
        workflow_id=workflow_id,
        status=status.value,
    )


TOOL = ToolSpec(
    bilt_send_message,
    title="Start a workflow",
    results=(StartedResult,),
    read_only=False,
    destructive=False,
    idempotent=False,
    open_world=True,
)
