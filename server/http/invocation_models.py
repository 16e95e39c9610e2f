"""What is answered about invocations, field for field as bctrl documents it (docs/seeds/bctrl-cancel.md).

Plain dictionaries with types: what a handler writes is checked where it is written, the schema of the OpenAPI document
is made from it, and an answer needs no conversion.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import WithJsonSchema

# pydantic takes no other before Python 3.12.
from typing_extensions import TypedDict

from .invocation_request import InvocationRequest, Mode, Uuid, described

Url = Annotated[str, WithJsonSchema({"type": "string", "format": "uri"})]

Status = Literal[
    "queued",
    "dispatching",
    "running",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
    "timed_out",
]
ErrorCode = Literal[
    "UNKNOWN_CALL",
    "UNKNOWN_REF",
    "INVALID_ARGS",
    "CAPABILITY_NOT_AVAILABLE",
    "TIMEOUT",
    "RUNTIME_NOT_FOUND",
    "DRIVER_NOT_CONNECTED",
    "SUBSCRIPTION_CURSOR_CONFLICT",
    "SUBSCRIPTION_GONE",
]
Category = Literal["arg-shape", "semantic", "runtime"]


@described
class Fix(TypedDict):
    """Something that would help."""

    title: str
    command: NotRequired[str]
    example: NotRequired[str]


@described
class Diagnostic(TypedDict):
    """Why a step failed, for a program."""

    id: str
    """Names the kind of trouble, such as `exit-code`."""
    call: NotRequired[str]
    category: NotRequired[Category]
    closest: NotRequired[list[str]]
    """What there is and is spelt nearly so."""
    code: NotRequired[str]
    docsUrl: NotRequired[Url]
    driver: NotRequired[str]
    expected: NotRequired[str]
    fixes: NotRequired[list[Fix]]
    received: NotRequired[str]


@described
class StepError(TypedDict):
    """What went wrong with a step."""

    code: ErrorCode
    message: str
    hint: NotRequired[str]
    diagnostic: NotRequired[Diagnostic]


@described
class Binding(TypedDict):
    """What later steps may refer to."""

    alias: str
    id: str
    type: Literal["page", "context", "handle", "subscription"]


@described
class Resolved(TypedDict):
    """What a call turned out to be."""

    call: str
    method: str
    target: str
    """The runtime's name."""
    runtimeId: str
    ref: str | None
    handleId: str | None
    """The id of the binding that `ref` names."""
    contextId: str | None
    pageId: str | None


@described
class StepOk(TypedDict):
    """A step that ended well."""

    call: str
    index: int
    """Its place among the request's steps, from 0."""
    ok: Literal[True]
    resolved: Resolved
    result: Any
    """`{exitCode, attempts, durationMs}`, or `{dryRun: true}` for one that was not really run."""
    binding: NotRequired[Binding]


@described
class StepFailed(TypedDict):
    """A step that failed; no step after it was started."""

    call: str
    index: int
    ok: Literal[False]
    error: StepError


@described
class Result(TypedDict):
    """How it ended: the steps that were done, and last the one that failed, if one did."""

    mode: Mode
    ok: bool
    runtimeId: Uuid
    steps: list[StepOk | StepFailed]


@described
class Failure(TypedDict):
    """Why the invocation as a whole failed."""

    message: str
    code: NotRequired[str]
    details: NotRequired[dict[str, Any]]


@described
class Progress(TypedDict):
    """How far it is, for as long as it is not over."""

    currentCall: NotRequired[str]
    lastEventType: NotRequired[str]
    message: NotRequired[str]
    step: NotRequired[int]
    """From 1."""
    totalSteps: NotRequired[int]


@described
class Invocation(TypedDict):
    """A workflow, as bctrl words it."""

    id: Uuid
    spaceId: Uuid
    runtimeId: Uuid
    runId: Uuid
    status: Status
    executionMode: Literal["inline", "durable"]
    runtimeKind: Literal["browser", "desktop", "spreadsheet"]
    entryCall: str
    """The call of its first step."""
    stepCount: int
    sequenceNo: int
    """Its number in its run, from 1."""
    createdAt: str
    artifactCount: int
    """How many files its steps have left to be kept."""
    startedAt: NotRequired[str | None]
    finishedAt: NotRequired[str | None]
    durationMs: NotRequired[int | None]
    cancelRequestedAt: NotRequired[str | None]
    lastHeartbeatAt: NotRequired[str | None]
    """When what runs it was last known to be alive; `finishedAt` when it is over."""
    progress: NotRequired[Progress | None]
    request: NotRequired[InvocationRequest | None]
    """As it came; where there was none, what would do the same."""
    result: NotRequired[Result | None]
    error: NotRequired[Failure | None]
    connector: NotRequired[str | None]
    correlationId: NotRequired[str | None]
    metadata: NotRequired[dict[str, Any] | None]


@described
class InvocationPage(TypedDict):
    """Some of a run's invocations, newest first."""

    data: list[Invocation]
    nextCursor: str | None
    """Send it as `cursor` for the next ones; null: there are no more."""


@described
class Space(TypedDict):
    """An account: what a key belongs to."""

    id: Uuid
    name: str


@described
class SpacePage(TypedDict):
    """The caller's spaces."""

    data: list[Space]
    nextCursor: str | None


@described
class Call(TypedDict):
    """A step that a runtime offers."""

    name: str
    deploys: bool
    needsConfirmation: bool
    """Whether a person is asked before it starts."""
    timeoutMs: int | None


@described
class Runtime(TypedDict):
    """A project: what invocations run in."""

    id: Uuid
    name: str
    kind: Literal["desktop"]
    status: Literal["ready", "invalid", "missing"]
    """Whether its bilt.toml can be used, cannot, or is not there."""
    reason: str | None
    calls: list[Call]


@described
class RuntimePage(TypedDict):
    """Some of a space's runtimes, newest first."""

    data: list[Runtime]
    nextCursor: str | None
