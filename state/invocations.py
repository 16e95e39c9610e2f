"""Invocations: workflows whose steps a caller names one by one (CONTRACT section 3).

Any workflow can be read as one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from .history import StepRun
from .models import Caller, PendingAction, Plan, Started, Workflow

MOST_INVOCATIONS = 100
"""On one page."""
MAX_KEY_CHARS = 128


class InvocationStatus(StrEnum):
    """Where an invocation stands, in the words of CONTRACT section 1."""

    QUEUED = "queued"
    DISPATCHING = "dispatching"
    """A worker has it, and has not come to its first step yet."""
    RUNNING = "running"
    """Also while it waits for a person, or because a pause was asked for."""
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def final(self) -> bool:
        """Whether nothing can change any more."""
        return self in (
            InvocationStatus.SUCCEEDED,
            InvocationStatus.FAILED,
            InvocationStatus.CANCELLED,
            InvocationStatus.TIMED_OUT,
        )


@dataclass(frozen=True)
class Invocation:
    """A workflow with everything that tells how its steps went, of one moment."""

    workflow: Workflow
    status: InvocationStatus
    project_id: str
    project_name: str
    sequence: int
    """The number of the workflow in its session, from 1."""
    plan: Plan
    """With the caller's request; without one where the workflow was started by a message."""
    runs: Sequence[StepRun]
    """The attempts of its steps, in the order in which they were begun. A dry run leaves none."""
    pending_action: PendingAction | None
    """The gate at which it waits for a person."""
    updated_at: int
    """When something of its session changed last, milliseconds since 1970."""

    def last_run(self, position: int) -> StepRun | None:
        """The newest attempt of the step at `position`, from 1; None when it was never begun."""
        return next((run for run in reversed(self.runs) if run.position == position), None)


@dataclass(frozen=True)
class InvocationPage:
    """Some invocations of a session, newest first."""

    invocations: Sequence[Invocation]
    has_more: bool
    """Whether there are older ones: read on after the id of the last of these."""


class InvocationStore(Protocol):
    """A part of `SessionStore`: what REST callers ask. Its rules hold."""

    def version(self) -> int | None:
        """A number that is another one after each commit, also of other processes; None where it cannot be told.

        So what was read after it is what would be read now, as long as it is the same. Waits for nobody.
        """
        ...

    async def first_invocation(
        self, account: str, project_id: str, key: str, digest: str
    ) -> Started | None:
        """The answer that `key` got before in this project, or None when it is new.

        Raises `ProjectNotFound`, and `IdempotencyKeyReused` when it came with another digest.
        """
        ...

    async def invoke(
        self,
        account: str,
        project_id: str,
        message: str,
        plan: Plan,
        *,
        workflow_id: str,
        key: str | None = None,
        digest: str = "",
        by: Caller,
    ) -> Started:
        """Accept an invocation, as `start` accepts a message.

        It goes to the project's newest session when that has nothing that is not final, else to a new one. `message`
        is what its steps get as such, see `message_of`. A `key` that this project knows returns the first answer and
        starts nothing, if it came with the same `digest` of the request. Raises `ProjectNotFound`,
        `IdempotencyKeyReused` (details `workflow_id`), and `StoreFull`.
        """
        ...

    async def invocation(self, account: str, workflow_id: str) -> Invocation:
        """One workflow as an invocation, in one look. Raises `WorkflowNotFound`.

        A gate that nobody has answered in its time is declined by this look, as by `session`.
        """
        ...

    async def invocations(
        self,
        account: str,
        session_id: str,
        *,
        statuses: Collection[InvocationStatus] = (),
        after: str | None = None,
        limit: int = 50,
    ) -> InvocationPage:
        """The session's invocations in any of `statuses`, or all, newest first: at most `MOST_INVOCATIONS` of them.

        `after` is the id of the last one that was read; what comes meanwhile is newer, so nothing is missed or told
        twice. Raises `SessionNotFound`, and `WorkflowNotFound` when `after` is not one of this session.
        """
        ...


def message_of(plan: Plan) -> str:
    """What the steps of an invocation get as its message: the names of those that were called."""
    return ", ".join(step.name for step in plan.steps)
