"""Cancelling a workflow to the verified end, also where the store cannot take the decision: every way in does it so."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import anyio

from bilt_mcp.state import (
    BiltError,
    Caller,
    Halted,
    StoreUnavailable,
    Workflow,
    limited_to,
)

from .desk import Desk
from .waiting import is_over, wait_until

VERIFY_SECONDS = 10.0
"""How long a cancel waits until everything is verified dead."""
STORE_SECONDS = 2.0
RECORD_SECONDS = 1.0


@dataclass(frozen=True)
class Unrecorded:
    """A cancel that was carried out, and that the store could not record yet."""

    halted: Halted
    told: str
    """What is wrong with the store."""


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


async def cancel(
    desk: Desk,
    session_id: str,
    reason: str | None,
    by: Caller,
    key: str | None = None,
    *,
    workflow_id: str | None = None,
) -> Workflow | Unrecorded:
    """Cancel the session's workflow, or `workflow_id` and no other; where it runs, the worker must still be woken.

    Raises what `SessionStore.cancel` raises, and `StoreUnavailable` when nothing was cancelled because the store cannot
    be used.
    """
    try:
        workflow = await _decide(desk, session_id, reason, by, key, workflow_id)
    except _Trouble as trouble:
        halted = await _halt(desk, session_id, reason, by, workflow_id)
        if halted is None:
            raise trouble.cause from trouble
        return Unrecorded(halted, trouble.told)
    if workflow.final:
        desk.engine.forget(workflow.id)
    return workflow


async def cancel_and_verify(
    desk: Desk,
    session_id: str,
    reason: str | None,
    by: Caller,
    key: str | None = None,
    *,
    workflow_id: str | None = None,
) -> Workflow | Unrecorded:
    """As `cancel`, and wait until all of it is verified dead.

    The workflow is then cancelled; `cancelling` when that took longer than `VERIFY_SECONDS`.
    """
    workflow = await cancel(desk, session_id, reason, by, key, workflow_id=workflow_id)
    if isinstance(workflow, Unrecorded):
        return await _recorded(desk, workflow.halted) or workflow
    if workflow.final:
        return workflow
    await wait_until(
        desk, session_id, lambda now: is_over(now, workflow.id), VERIFY_SECONDS, urgent=True
    )
    # By its own id: somebody may have started another one meanwhile.
    return await desk.store.workflow(desk.account, workflow.id)


async def _decide(
    desk: Desk,
    session_id: str,
    reason: str | None,
    by: Caller,
    key: str | None,
    workflow_id: str | None,
) -> Workflow:
    try:
        # A store that is only slow must not keep the build alive either.
        with anyio.move_on_after(STORE_SECONDS):
            decided = await desk.store.cancel(
                desk.account, session_id, reason, by, key, workflow_id=workflow_id
            )
            return decided.workflow
    except StoreUnavailable as error:
        raise _Trouble(error) from error
    except BiltError:
        raise  # it has been decided
    except Exception as error:  # a damaged store may raise anything
        raise _Trouble(error) from error
    told = f"The store did not answer within {STORE_SECONDS:g} s, so nothing may have been changed. Call again."
    raise _Trouble(StoreUnavailable(told))


async def _halt(
    desk: Desk, session_id: str, reason: str | None, by: Caller, workflow_id: str | None
) -> Halted | None:
    if limited_to(desk.account) is not None and not await _is_known(desk, session_id):
        return None  # the worker knows of accounts only
    return await desk.engine.halt(desk.account, session_id, reason, by, workflow_id)


async def _is_known(desk: Desk, session_id: str) -> bool:
    """Whether the store says, so far as it works, that the session is one of this caller's."""
    with anyio.move_on_after(STORE_SECONDS), contextlib.suppress(Exception):
        await desk.store.session(desk.account, session_id)
        return True
    return False


async def _recorded(desk: Desk, halted: Halted) -> Workflow | None:
    """The workflow when the store can say soon that it is over."""
    deadline = time.monotonic() + RECORD_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            workflow = await desk.store.workflow(desk.account, halted.workflow_id)
            if workflow.final:
                return workflow
        await anyio.sleep(0.05)
    return None
