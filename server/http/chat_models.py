"""What the chat's routes take and answer (CONTRACT section 4)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bilt_mcp.tools import Text

StepStatus = Literal[
    "pending", "waiting", "running", "completed", "failed", "cancelled", "skipped", "not_run"
]
ThreadId = Annotated[
    str,
    Field(min_length=1, max_length=200, description="The session's id, from an earlier answer."),
]
ActionId = Annotated[
    str | None,
    Field(
        max_length=200,
        description="The question that is meant, from the answer or the event that told of it: another one, asked "
        "meanwhile, is then not answered.",
    ),
]


class ChatRequest(BaseModel):
    """Base of what is sent: what it does not know is refused, because it would be ignored in silence."""

    model_config = ConfigDict(extra="forbid")


class MessageRequest(ChatRequest):
    """Something to be done, in words."""

    user_message: Annotated[
        Text,
        Field(
            min_length=1, max_length=5000, description="What to build, test or deploy, in words."
        ),
    ]
    thread_id: Annotated[ThreadId | None, Field(description="Left out: a new thread.")] = None
    conversation_history: Annotated[
        list[dict[str, Any]] | None,
        Field(
            description="Accepted as it comes, and not used: the steps are chosen by this message alone.",
        ),
    ] = None


class ThreadRequest(ChatRequest):
    """The thread whose open question is answered."""

    thread_id: ThreadId
    action_id: ActionId = None


class ChatAction(BaseModel):
    """A planned step."""

    name: str
    status: StepStatus
    requires_confirmation: bool
    """Whether a person is asked before it."""


class ChatAnswer(BaseModel):
    """What became of a message: answered when it is final, or waits, or has taken 300 seconds."""

    response: str
    thread_id: str
    actions: list[ChatAction]
    requires_confirmation: bool
    confirmation_message: str | None = None
    action_id: str | None = None


class QueuedAnswer(BaseModel):
    """A message was accepted; /chat/stream tells what becomes of it."""

    thread_id: str
    status: Literal["queued"] = "queued"


class StepOutcome(BaseModel):
    """How far a step is."""

    status: StepStatus
    exit_code: int | None = None


class ConfirmedAnswer(BaseModel):
    """A yes was given, and carried out: that, and not the workflow, is what is completed."""

    thread_id: str
    status: Literal["completed"] = "completed"
    response: str
    results: dict[str, StepOutcome]
    requires_confirmation: bool = False
    """Whether the next question waits already."""
    confirmation_message: str | None = None
    action_id: str | None = None


class CancelledAnswer(BaseModel):
    """A no was given. The same four members whatever the workflow does then."""

    thread_id: str
    status: Literal["cancelled"] = "cancelled"
    response: Literal["Action cancelled."] = "Action cancelled."
    cancelled: Literal[True] = True


class LoginRequest(ChatRequest):
    """A key to log in with."""

    key: Annotated[str, Field(min_length=1, max_length=1000, description="`bilt_live_…`")]


class LoggedIn(BaseModel):
    """Who is logged in."""

    account: str
    name: str
    read_only: bool
    expires_at: str | None
    """The latest moment at which the login ends; null where no login is needed."""
