"""What the store keeps, as values: frozen, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from .calls import Refusal
from .transitions import FINAL, IDLE, Status

Side = Literal["user", "ai"]
Variant = Literal["info", "error", "success", "log"]
Visibility = Literal["public", "private"]


class FailureCode(StrEnum):
    """Why a workflow failed (CONTRACT section 2, `failure.code`)."""

    STEP_FAILED = "step_failed"
    TIMED_OUT = "timed_out"
    WORKER_LOST = "worker_lost"
    INTERRUPTED = "interrupted"
    INVALID_WORKFLOW = "invalid_workflow"


class DeployState(StrEnum):
    """What is known of a workflow's deploy steps (CONTRACT section 2, `stopped.deploy`)."""

    NOT_STARTED = "not_started"
    INTERRUPTED = "interrupted"
    DONE = "done"


@dataclass(frozen=True)
class Caller:
    """Who asks for something, for the history and the audit. Its `str` is what the history says."""

    client: str
    """The program, by the name and version that it gave."""
    surface: str = "mcp"
    """The way he came: `mcp`, `terminal`, `clock` for what happens by itself."""
    principal: str = ""
    """Whom the account knows him as; empty where the account has one user only."""

    def __str__(self) -> str:
        return self.client


UNNAMED = Caller("a program")
"""Who embeds the store and does not say more."""


@dataclass(frozen=True)
class AuditEntry:
    """One decision about a workflow or a project: what, when, by whom, and why."""

    at: int
    action: str
    """`start`, `confirm`, `decline`, `expire`, `cancel`, `pause`, `resume` or `create_project`."""
    caller: Caller
    reason: str | None
    workflow_id: str | None


@dataclass(frozen=True)
class Project:
    """A folder with a `bilt.toml`, and whom it belongs to."""

    id: str
    account: str
    root: str
    name: str
    description: str
    visibility: Visibility
    created_at: int
    updated_at: int


@dataclass(frozen=True)
class NewProject:
    """A project that is to be: its folder, and what makes it."""

    root: str
    make: Callable[[], None]


@dataclass(frozen=True)
class PlannedStep:
    """A step as it stood in `bilt.toml` when the message was accepted."""

    name: str
    spec: Mapping[str, Any]
    """The engine's own description of the step; the store only keeps it."""
    deploy: bool = False
    confirm: str | None = None
    on_decline: Literal["cancel", "skip"] = "cancel"
    confirm_timeout: float | None = None
    """Seconds after which a gate that nobody has answered counts as declined."""
    dry_run: bool = False
    """It is not executed, and nobody is asked."""
    bind: str | None = None
    """What later steps call it by."""
    ref: str | None = None
    """The `bind` of an earlier step, whose output it gets."""


@dataclass(frozen=True)
class Plan:
    """What a workflow will do: the steps chosen for its message, and its limits."""

    steps: Sequence[PlannedStep]
    timeout: float | None = None
    """Seconds for the whole workflow."""
    max_parallel: int | None = None
    """How many workflows of the same project may run at once."""
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    """The engine's limits for each step; the store only keeps them."""
    request: Mapping[str, Any] | None = None
    """What an invocation's caller asked for, JSON, as it came; None for a message."""
    refused: Sequence[Refusal] = ()
    """Why it cannot be run: then nothing of it is, and it fails as soon as a worker takes it."""


@dataclass(frozen=True)
class Prepared:
    """A plan, and the id under which the engine keeps what the plan needs to run."""

    workflow_id: str
    plan: Plan


@dataclass(frozen=True)
class Failure:
    """Why a workflow failed, and where."""

    code: FailureCode
    message: str
    step: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Stopped:
    """The receipt of a cancel: what was stopped, and whether that is verified."""

    verified: bool
    processes_killed: int
    survivors: int
    took_ms: float
    step: str | None
    deploy: DeployState


@dataclass(frozen=True)
class PendingAction:
    """An open gate: a question that only a person may answer."""

    action_id: str
    step: str
    message: str
    expires_at: int | None = None
    """Milliseconds since 1970; from then on it counts as declined."""
    position: int = 1
    deploy: bool = False
    on_decline: Literal["cancel", "skip"] = "cancel"


@dataclass(frozen=True)
class Workflow:
    """A workflow as a reader sees it."""

    id: str
    session_id: str
    status: Status
    total_steps: int
    position: int
    """The step that runs or comes next, from 1; `total_steps` + 1 when none is left."""
    step: str | None
    """The name of the step at `position`."""
    step_percent: int | None
    step_message: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    cancel_requested_at: int | None
    cancel_reason: str | None
    pause_requested: bool
    failure: Failure | None
    stopped: Stopped | None
    deploy: DeployState
    elapsed_seconds: float | None
    """Since it started, by the monotonic clock; None unless running."""
    quiet_seconds: float | None
    """Since its step last wrote or its current step started; None unless running."""

    @property
    def final(self) -> bool:
        """Whether nothing can change any more."""
        return self.status in FINAL


@dataclass(frozen=True)
class Session:
    """A session with its newest workflow."""

    id: str
    project_id: str
    revision: int
    created_at: int
    updated_at: int
    workflow: Workflow | None
    pending_action: PendingAction | None = None

    @property
    def status(self) -> str:
        """The newest workflow's status, or `idle`."""
        return self.workflow.status.value if self.workflow else IDLE


@dataclass(frozen=True)
class Message:
    """One entry of a session's history."""

    id: int
    side: Side
    variant: Variant
    content: str
    workflow_id: str | None
    step: str | None
    created_at: int


@dataclass(frozen=True)
class Note:
    """A message to be written."""

    content: str
    variant: Variant = "log"
    step: str | None = None
    side: Side = "ai"


@dataclass(frozen=True)
class MessageQuery:
    """Which messages to read: a page from the newest (`offset`) or back from `before`, or onwards from `after`."""

    limit: int = 50
    offset: int = 0
    after: int | None = None
    before: int | None = None
    """An id: older ones only, newest first. Without `offset` and `after`."""
    variant: Variant | None = None
    workflow_id: str | None = None
    text: str | None = None
    """A substring, compared without regard to case."""


@dataclass(frozen=True)
class MessagePage:
    """A page of messages: newest first, or oldest first when the query said `after`."""

    messages: Sequence[Message]
    total: int
    has_more: bool
    newest_id: int
    """The id of the session's newest message, 0 when it has none."""
    read_to: int | None = None
    """Where to read on, if not from the last of `messages`: the last that was compared with the text."""
    counted: bool = True
    """Whether `total` is the number of all; else it is of those that this page had to look at: there are more."""


@dataclass(frozen=True)
class Started:
    """The answer to an accepted message."""

    session_id: str
    workflow_id: str
    status: Status


@dataclass(frozen=True)
class Cancelled:
    """What a cancel decided. `workflow.status` is `cancelling` while processes are being killed."""

    workflow: Workflow
    joined: bool
    """Whether an earlier cancel had decided already."""


@dataclass(frozen=True)
class ProcessRecord:
    """A process, named so that a reused pid is never taken for it."""

    boot_id: str
    pid: int
    start_ticks: int


@dataclass(frozen=True)
class Claim:
    """A workflow that a worker holds under its epoch: everything it needs to go on."""

    workflow_id: str
    account: str
    session_id: str
    project_id: str
    project_root: str
    message: str
    plan: Plan
    position: int
    epoch: int
    confirmed: bool
    """Whether a person has said yes to the step at `position`."""


@dataclass(frozen=True)
class Halted:
    """What an engine killed for a cancel that the store could not take; it is recorded as soon as it can be."""

    workflow_id: str
    stopped: Stopped


@dataclass(frozen=True)
class StepTicket:
    """The right to start one attempt of a step."""

    workflow_id: str
    position: int
    attempt: int
    epoch: int

    @property
    def cookie(self) -> str:
        """Marks the environment of every process of this attempt; unique in the store."""
        return f"{self.workflow_id}/{self.position}.{self.attempt}"


@dataclass(frozen=True)
class LostStep:
    """A step that was under way when its worker died, and how to find what is left of it."""

    ticket: StepTicket
    keeper: ProcessRecord | None
    leader: ProcessRecord | None


@dataclass(frozen=True)
class LostWorkflow:
    """A workflow that a dead worker held."""

    workflow_id: str
    session_id: str
    status: Status
    step: str | None
    steps: Sequence[LostStep]
