"""Steps that a caller names one by one, and why some of them cannot be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

MOST_CALLS = 100
"""Steps in one invocation."""


class RefusalCode(StrEnum):
    """Why a call cannot be run (CONTRACT section 3, `error.code` of a step)."""

    UNKNOWN_CALL = "UNKNOWN_CALL"
    """The project declares no step of this name."""
    UNKNOWN_REF = "UNKNOWN_REF"
    """No earlier step is bound to this alias."""
    INVALID_ARGS = "INVALID_ARGS"
    """What came with the call cannot be given to a step."""
    CAPABILITY_NOT_AVAILABLE = "CAPABILITY_NOT_AVAILABLE"
    """The step needs a variable that is not set, or the project's file cannot be used as it stands."""
    RUNTIME_NOT_FOUND = "RUNTIME_NOT_FOUND"
    """The project's folder, or the file in it, is not there."""


@dataclass(frozen=True)
class CalledStep:
    """One call of a step, as its caller wants it."""

    call: str
    """The name of a step that the project declares."""
    args: Sequence[Any] = ()
    """JSON values for the step, as data; none: the step gets no `BILT_ARGS`."""
    bind: str | None = None
    """A name for what this step does, for later steps to refer to."""
    ref: str | None = None
    """The name that an earlier step was bound to."""
    dry_run: bool = False
    """Check it, but execute nothing."""
    timeout_ms: int | None = None
    """How long each attempt may take, where the step's own limit is not shorter."""


@dataclass(frozen=True)
class Refusal:
    """Why one of the called steps cannot be run."""

    index: int
    """Of the step in the request, from 0."""
    call: str
    """Safe to show, and cut."""
    code: RefusalCode
    message: str
    diagnostic: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON, as the contract has it: `id`, `category`, `call`, `code`; where they help `closest`, `expected`,
    `received` and `fixes`, each with a `title` and maybe an `example`."""


@dataclass(frozen=True)
class OfferedCall:
    """A step that a project declares, as its callers need to know it."""

    name: str
    deploy: bool
    confirm: bool
    """Whether a person is asked before it starts."""
    timeout: float | None
    """Seconds an attempt of it may take."""


@dataclass(frozen=True)
class Offer:
    """What can be called in a project, or why nothing can."""

    status: Literal["ready", "invalid", "missing"]
    reason: str | None = None
    calls: Sequence[OfferedCall] = ()
