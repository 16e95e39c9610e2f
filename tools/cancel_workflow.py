"""`bilt_cancel_workflow` (CONTRACT section 2)."""

from __future__ import annotations

import contextlib
import time
from typing import Annotated

import anyio
from pydantic import Field

from bilt_mcp.state import (
    BiltError,
    Caller,
    DeployState,
    Halted,
    Session,
    Stopped,
    StoreUnavailable,
    Workflow,
    iso,
)

from .arguments import Reason, SessionId
from .desk import Desk, ToolContext, caller_of, desk_of, key_of
from .registry import ToolSpec
from .results import CancelledResult, DryRunResult, stopped_result
from .waiting import wait_until

VERIFY_SECONDS = 10.0
STORE_SECONDS = 2.0
RECORD_SECONDS = 1.0


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
    by = caller_of(ctx)
    try:
        workflow = await _decide(desk, session_id, reason or None, by, key_of(ctx))
    except _Trouble as trouble:
        halted = await desk.engine.halt(desk.account, session_id, reason or None, by)
        if halted is None:
            raise trouble.cause from trouble
        return await _halted_receipt(desk, session_id, reason or None, halted, trouble.told)
    if workflow.final:
        desk.engine.forget(workflow.id)
    else:
        cancelled_id = workflow.id

        def is_over(now: Session) -> bool:
            newest = now.workflow
            return newest is None or newest.id != cancelled_id or newest.final

        await wait_until(desk, session_id, is_over, VERIFY_SECONDS, urgent=True)
        # By its own id: somebody may have started another one meanwhile.
        workflow = await desk.store.workflow(desk.account, cancelled_id)
    return _receipt(workflow)


class _Trouble(Exception):
    """The store could not take the cancel."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause

    @property
    def told(self) -> str:
        """What happened, for the agent."""
        if isinstance(self.cause, BiltError):
            return self.cause.message
        return f"The store failed ({type(self.cause).__name__})."


async def _decide(
    desk: Desk, session_id: str, reason: str | None, by: Caller, key: str | None
) -> Workflow:
    try:
        # A store that is only slow must not keep the build alive either.
        with anyio.move_on_after(STORE_SECONDS):
            return (await desk.store.cancel(desk.account, session_id, reason, by, key)).workflow
    except StoreUnavailable as error:
        raise _Trouble(error) from error
    except BiltError:
        raise  # it has been decided
    except Exception as error:  # a damaged store may raise anything
        raise _Trouble(error) from error
    told = f"The store did not answer within {STORE_SECONDS:g} s, so nothing may have been changed. Call again."
    raise _Trouble(StoreUnavailable(told))


async def _halted_receipt(
    desk: Desk, session_id: str, reason: str | None, halted: Halted, told: str
) -> CancelledResult:
    """The answer when everything was killed first and the store could not say so yet."""
    deadline = time.monotonic() + RECORD_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            workflow = await desk.store.workflow(desk.account, halted.workflow_id)
            if workflow.final:
                return _receipt(workflow)
        await anyio.sleep(0.05)
    done = "Stopped; nothing of it is alive" if halted.stopped.verified else "Being killed"
    return CancelledResult(
        session_id=session_id,
        status="cancelling",
        cancelled_at=iso(round(time.time() * 1000)),
        message=(
            f"{done}, but that is not recorded yet: {told[:300]} It is recorded as soon as the store "
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
