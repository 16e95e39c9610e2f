"""What an invocation is asked for with: checked with these types, kept as it came, and shown again in the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, with_config
from pydantic_core import PydanticCustomError

# pydantic takes no other before Python 3.12.
from typing_extensions import TypedDict

from bilt_mcp.state import MAX_KEY_CHARS, MOST_CALLS, CalledStep
from bilt_mcp.tools import storable

MOST_TIMEOUT_MS = 30 * 86_400_000
MOST_WAIT_MS = 300_000
DEFAULT_WAIT_MS = 30_000
MOST_NAME = 128

described = with_config(ConfigDict(use_attribute_docstrings=True))
"""What is said of a field below it is its description in the schema."""
_strict = with_config(ConfigDict(use_attribute_docstrings=True, extra="forbid", strict=True))

Uuid = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
Mode = Literal["fail-fast"]


def _json(value: Any) -> Any:
    """Refuse what is no JSON although it is read as such, and what cannot be kept."""
    open_: list[Any] = [value]
    while open_:
        part = open_.pop()
        if isinstance(part, str):
            storable(part)
        elif isinstance(part, float):
            if not math.isfinite(part):
                raise PydanticCustomError("finite_number", "must be finite numbers")
        elif isinstance(part, int):
            # Longer ones Python reads and does not write.
            if part.bit_length() > 1024:
                raise PydanticCustomError("int_too_long", "must be numbers of a sensible size")
        elif isinstance(part, list):
            open_.extend(cast("Iterable[Any]", part))
        elif isinstance(part, dict):
            members = cast("Mapping[str, Any]", part)
            open_.extend(members)
            open_.extend(members.values())
    return value


Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME), AfterValidator(storable)]
Key = Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARS), AfterValidator(storable)]
Json = Annotated[Any, AfterValidator(_json)]


@_strict
class StepOptions(TypedDict):
    """How a step is to be run."""

    dryRun: NotRequired[bool]
    """Check it, but execute nothing and ask nobody."""
    timeoutMs: NotRequired[Annotated[int, Field(ge=1, le=MOST_TIMEOUT_MS)]]
    """How long each attempt may take, where the step's own limit is not shorter."""


@_strict
class StepRequest(TypedDict):
    """One step of the project, to be run."""

    call: Name
    """The name of a step that the runtime offers: see `calls` of GET /v1/spaces/{id}/runtimes."""
    args: NotRequired[list[Json]]
    """Data for the step, in its variable BILT_ARGS as JSON."""
    bind: NotRequired[Name]
    """A name for what it does, for later steps."""
    ref: NotRequired[Name]
    """The `bind` of an earlier step."""
    options: NotRequired[StepOptions]


@_strict
class InvocationRequest(TypedDict):
    """Run these steps, in this order; the first that fails ends it."""

    runtimeId: Uuid
    """The same as in the path."""
    steps: Annotated[list[StepRequest], Field(min_length=1, max_length=MOST_CALLS)]
    mode: NotRequired[Mode]
    idempotencyKey: NotRequired[Key]
    """Any new string: a request that comes again with it starts nothing twice."""


@_strict
class WaitRequest(TypedDict):
    """How long to wait for an invocation's end."""

    timeoutMs: NotRequired[Annotated[int, Field(ge=0, le=MOST_WAIT_MS)]]


@_strict
class CancelRequest(TypedDict):
    """Nothing is asked for."""


def called(step: StepRequest) -> CalledStep:
    """A step of a request, for the engine."""
    options = step.get("options", {})
    return CalledStep(
        call=step["call"],
        args=step.get("args", ()),
        bind=step.get("bind"),
        ref=step.get("ref"),
        dry_run=options.get("dryRun", False),
        timeout_ms=options.get("timeoutMs"),
    )
