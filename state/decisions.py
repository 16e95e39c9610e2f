"""The part of the store's contract that decides about a workflow: see `SessionStore` for the rules that hold."""

from __future__ import annotations

from typing import Protocol

from .models import Caller, Cancelled, Workflow


class DecisionStore(Protocol):
    """What callers decide about a session's workflow.

    `key` tells a request from all others, also when it comes again because its server died before it answered. A key
    that came before in the session, for the same verb, answers for the workflow that it was about then, and changes
    nothing.
    """

    async def cancel(
        self,
        account: str,
        session_id: str,
        reason: str | None,
        by: Caller,
        key: str | None = None,
        *,
        workflow_id: str | None = None,
    ) -> Cancelled:
        """Decide that the session's workflow will be cancelled; where one of its own is named, that or none.

        `pending` and `paused`, and `running` while no worker holds it, become `cancelled` at once, with a verified
        receipt of nothing killed. `running` becomes `cancelling`: the worker that holds it kills and reports
        `stopped`. In `cancelling` this joins the first cancel and changes nothing. `by` names who asked, for the
        history. Raises `SessionNotFound`, and `CannotCancel` (details `current_status`).
        """
        ...

    async def request_pause(
        self,
        account: str,
        session_id: str,
        by: Caller,
        reason: str | None = None,
        key: str | None = None,
    ) -> Workflow:
        """Ask that the workflow stop before its next step; `pending` and `running` only. Raises `CannotPause`."""
        ...

    async def resume(
        self, account: str, session_id: str, by: Caller, key: str | None = None
    ) -> Workflow:
        """End a requested pause. Raises `CannotResume`, and `ConfirmationRequired` at a gate."""
        ...

    async def confirm(self, account: str, session_id: str, action_id: str, by: Caller) -> Workflow:
        """Say yes to the open gate `action_id`.

        Raises `NothingToConfirm` when it is not open (any more): its details say how it was answered, and by whom.
        """
        ...

    async def decline(
        self,
        account: str,
        session_id: str,
        action_id: str,
        by: Caller,
        reason: str | None = None,
        key: str | None = None,
    ) -> Workflow:
        """Say no to the open gate `action_id`.

        The workflow is cancelled, or goes on without the step when it says `on_decline = "skip"`. Raises
        `NothingToConfirm`.
        """
        ...
