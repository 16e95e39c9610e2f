"""Reading what a request brings, strictly: what is not known is refused, with what may have been meant."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar, get_args, get_type_hints
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from bilt_mcp.state import InvalidArguments, Problem
from bilt_mcp.tools import as_id, clip, problem_of, unknown

from .errors import Refused

MOST_PROBLEMS = 20
"""How many are told: a body may have half a million."""
MOST_LISTED = 100
DEFAULT_LISTED = 50

T = TypeVar("T")
Place = tuple[int | str, ...]
"""Where in a body something stands: names of members, and numbers of elements."""


def invalid(error: ValidationError, known: Callable[[Place], Collection[str]]) -> InvalidArguments:
    """What is wrong with a body. `known` gives the members that there are where one stands that there is not."""

    def problem(found: Any) -> Problem:
        place: Place = found["loc"]
        told = problem_of(found).message
        if found["type"] == "extra_forbidden" and (members := known(place)):
            told = unknown("field", str(place[-1]), members)
        return Problem(".".join(clip(str(part)) for part in place) or "body", told)

    errors = error.errors(include_url=False, include_input=False)
    return InvalidArguments([problem(found) for found in errors[:MOST_PROBLEMS]])


class Body(Generic[T]):
    """Reads bodies of one kind, a TypedDict that forbids what it does not have."""

    def __init__(self, kind: type[T], *, may_be_empty: bool = False) -> None:
        """`may_be_empty`: no body at all is an empty object."""
        self._kind = kind
        self._adapter = TypeAdapter(kind)
        self._may_be_empty = may_be_empty

    async def of(self, request: Request) -> T:
        """The body, with just the members that were sent. Raises `InvalidArguments`."""
        sent = await request.body()
        if self._may_be_empty and not sent.strip():
            sent = b"{}"
        try:
            return self._adapter.validate_json(sent)
        except ValidationError as error:
            raise invalid(error, self._known) from None

    def _known(self, place: Place) -> Collection[str]:
        kind: Any = self._kind
        for part in place[:-1]:
            kind = get_args(kind)[0] if isinstance(part, int) else get_type_hints(kind)[part]
        return get_type_hints(kind)


def query_of(request: Request, *known: str, repeatable: str = "") -> dict[str, str]:
    """The query, each of `known` at most once. Raises `InvalidArguments`."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    names = [*known, repeatable] if repeatable else known
    for name, value in request.query_params.multi_items():
        if len(problems) == MOST_PROBLEMS:
            break
        if name == repeatable:
            continue
        if name not in known:
            problems.append(Problem(clip(name), unknown("parameter", name, names)))
        elif name in found:
            problems.append(Problem(name, "is there twice"))
        found[name] = value
    if problems:
        raise InvalidArguments(problems)
    return found


def id_of(request: Request, name: str, gone: Refused) -> str:
    """The id in the path, in lower case. Raises `gone` for what can be none: it is not told apart from others'."""
    known = as_id(str(request.path_params[name]))
    if known is None:
        raise gone
    return known


def limit_of(query: dict[str, str]) -> int:
    """How many to list. Raises `InvalidArguments`."""
    text = query.get("limit", str(DEFAULT_LISTED))
    # Not int() alone: that takes 4,300 digits, underscores, spaces and the digits of every script.
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not 1 <= limit <= MOST_LISTED:
        raise InvalidArguments([Problem("limit", f"must be a number from 1 to {MOST_LISTED}")])
    return limit


def cursor_for(last_id: str) -> str:
    """What a caller sends to read on after this id. It says nothing to him, so it may change."""
    return base64.urlsafe_b64encode(UUID(last_id).bytes).decode().rstrip("=")


def cursor_of(query: dict[str, str]) -> str | None:
    """The id behind which to read on, None for the beginning. Raises `InvalidArguments`."""
    text = query.get("cursor")
    if text is None:
        return None
    try:
        last_id = str(UUID(bytes=base64.b64decode(f"{text}==", b"-_", validate=True)))
    except (binascii.Error, ValueError):
        raise bad_cursor() from None
    if cursor_for(last_id) != text:
        raise bad_cursor()
    return last_id


def bad_cursor() -> InvalidArguments:
    """That a cursor is none of ours."""
    return InvalidArguments(
        [Problem("cursor", "is none; send the `nextCursor` of the page before, as it came")]
    )
