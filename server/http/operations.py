"""What a route takes and answers, as its module says it: the OpenAPI document is made of it, and so is its test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Credential = Literal["bearer", "cookie"]
Schema = Mapping[str, Any]

ID: Schema = {"type": "string", "format": "uuid"}
JSON = "application/json"
EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Parameter:
    """A part of the path, of the query, or a header."""

    name: str
    schema: Schema
    description: str
    place: Literal["path", "query", "header"] = "query"
    required: bool = False


@dataclass(frozen=True)
class Answer:
    """What comes with a status: a model, or text of a type of its own."""

    description: str
    model: type[Any] | None = None
    """Whatever pydantic can make a schema of."""
    media: str = JSON
    headers: Sequence[str] = ()
    """What else comes with it, of the headers that `openapi` describes."""


@dataclass(frozen=True)
class Operation:
    """One method of one route. The errors that the gate gives for every route are not named again."""

    method: Literal["get", "post"]
    path: str
    id: str
    summary: str
    tag: str
    answers: Mapping[int, Answer]
    request: type[Any] | None = None
    request_required: bool = True
    example: Schema | None = None
    """A body that could be sent."""
    parameters: Sequence[Parameter] = field(default_factory=tuple[Parameter, ...])
    credential: Credential | None = "bearer"
    open_here: bool = False
    """Whether it needs none where only this machine can connect."""


def path_id(name: str, description: str) -> Parameter:
    """A UUID in the path."""
    return Parameter(name, ID, description, "path", required=True)
