"""What can go wrong, in words for the reader who must act.

    BiltError
    ├── InvalidArguments         the call itself is wrong
    ├── SessionNotFound · ProjectNotFound · WorkflowNotFound
    ├── CannotCancel · CannotResume · CannotPause
    ├── WorkflowAlreadyActive
    ├── NoWorkflowConfigured · InvalidWorkflowFile
    ├── ConfirmationRequired · NothingToConfirm
    ├── IdempotencyKeyReused · ProjectAlreadyExists · RateLimitExceeded
    ├── PermissionDenied         the credential is not for that
    ├── KeyAlreadyExists · KeyNotFound
    └── StoreUnavailable         the store cannot be opened, read or written

Each class is one row of CONTRACT "Error strings": `error` is the string that callers see, `details`
what they see beside it. `details["message"]` says what happened and which call comes next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

MAX_MESSAGE = 499
"""Longest `details["message"]`, in characters (CONTRACT: under 500)."""


class BiltError(Exception):
    """A failure with a documented name and details that a caller can act on."""

    error: ClassVar[str]

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
        self._details = details

    @property
    def details(self) -> Mapping[str, Any]:
        """What the caller sees as `details`: the extra fields, then `message`."""
        return {**self._details, "message": self.message}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where: an argument's name, or `table.key` of a file."""

    field: str
    message: str


class InvalidArguments(BiltError):
    """The arguments of a call do not fit its schema."""

    error = "Invalid arguments"

    def __init__(self, problems: Sequence[Problem]) -> None:
        told = "; ".join(f"{p.field}: {p.message}" for p in problems)
        super().__init__(
            f"Nothing was done. Correct and call again: {told}",
            fields=[{"field": p.field, "message": p.message} for p in problems],
        )
        self.problems = tuple(problems)


class SessionNotFound(BiltError):
    """No such session, or it belongs to somebody else: the caller cannot tell which."""

    error = "Session not found"


class ProjectNotFound(BiltError):
    """No such project for this caller."""

    error = "Project not found"


class WorkflowNotFound(BiltError):
    """No such workflow for this caller."""

    error = "Workflow not found"


class CannotCancel(BiltError):
    """The session has nothing that a cancel could stop."""

    error = "Cannot cancel workflow"


class CannotResume(BiltError):
    """The session's workflow is not paused."""

    error = "Cannot resume workflow"


class CannotPause(BiltError):
    """The session's workflow is not one that can be paused."""

    error = "Cannot pause workflow"


class ProjectAlreadyExists(BiltError):
    """The account has a project of this name, or there is such a folder."""

    error = "Project already exists"


class RateLimitExceeded(BiltError):
    """Too many of something in its time; details `limit`, `remaining`, `reset`, `retry_after_seconds`."""

    error = "Rate limit exceeded"


class WorkflowAlreadyActive(BiltError):
    """The session has a workflow that is not final; it can have only one."""

    error = "Workflow already active"


class NoWorkflowConfigured(BiltError):
    """There is no `bilt.toml`, or none of its steps applies to the message."""

    error = "No workflow configured"


class InvalidWorkflowFile(BiltError):
    """`bilt.toml` cannot be used as it stands."""

    error = "Invalid workflow file"

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        told = "; ".join(f"{p.field}: {p.message}" for p in problems)
        super().__init__(
            f"Nothing was started. Correct {path} and send the message again: {told}",
            file=path,
            fields=[{"field": p.field, "message": p.message} for p in problems],
        )
        self.problems = tuple(problems)


class ConfirmationRequired(BiltError):
    """A person must answer the open gate first."""

    error = "Confirmation required"


class NothingToConfirm(BiltError):
    """No gate is open, or it was answered already."""

    error = "Nothing to confirm"


class IdempotencyKeyReused(BiltError):
    """The idempotency key came before with another message."""

    error = "Idempotency key reused"


class PermissionDenied(BiltError):
    """What the caller's credential may not do, whatever it is done to."""

    error = "Permission denied"


class KeyAlreadyExists(BiltError):
    """A key of this name is in use."""

    error = "Key already exists"


class KeyNotFound(BiltError):
    """No key in use has this name or id."""

    error = "Key not found"


class StoreUnavailable(BiltError):
    """The store cannot be used; `message` says why and what to do about it."""

    error = "Internal error"


class StoreFull(StoreUnavailable):
    """The store has reached its limit, or the disk that holds it is full."""

    error = "Store full"
