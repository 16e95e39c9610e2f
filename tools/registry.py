"""From typed functions to MCP tools, and from whatever they raise to the documented errors: the only place."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import ValidationError

from bilt_mcp.state import (
    BiltError,
    ConfirmationRequired,
    InvalidArguments,
    Problem,
    StoreUnavailable,
)

from .arguments import MOST
from .desk import ToolContext
from .problems import clip, problem_of, unknown
from .results import Result, failure, failure_of, success
from .schemas import lean, output_schema

log = logging.getLogger(__name__)

_NO_ANSWER = (
    "The client answered the question without content.confirm, true or false: nothing was decided, and the question "
    "stays open. Call bilt_confirm_action once more; if that ends the same way, this client cannot ask: "
    "bilt_get_session names the command that the user can run."
)
MAX_STRANGERS = 20
"""How many unknown arguments are named: a message may have half a million."""


@dataclass(frozen=True)
class ToolSpec:
    """A tool: its function, whose docstring is the description, and what a client is told about it."""

    function: Callable[..., Awaitable[Result]]
    title: str
    results: Sequence[type[Result]]
    read_only: bool
    idempotent: bool
    destructive: bool = False
    open_world: bool = False

    @property
    def name(self) -> str:
        """The tool's name: its function's."""
        return self.function.__name__

    def build(self) -> Tool:
        """The tool as the SDK serves it."""
        tool = Tool.from_function(
            self.function,
            title=self.title,
            description=_one_paragraph(self.function.__doc__ or ""),
            annotations=ToolAnnotations(
                read_only_hint=self.read_only,
                destructive_hint=self.destructive,
                idempotent_hint=self.idempotent,
                open_world_hint=self.open_world,
            ),
            structured_output=False,
        )
        # Published, not checked: errors must pass it too, and our results are typed already.
        tool.fn_metadata.output_schema = output_schema(*self.results)
        tool.parameters = _input_schema(tool.parameters)
        return tool


async def call(
    tools: Mapping[str, Tool], name: str, arguments: Mapping[str, Any], context: ToolContext
) -> CallToolResult | InputRequiredResult:
    """Call a tool; every outcome is a documented result, or a question to the client's user.

    Only `MCPError` is raised: it is the protocol's own.

    An argument that is null counts as omitted: models send null for what they leave out.
    """
    try:
        tool = tools.get(name)
        if tool is None:
            raise InvalidArguments([Problem("name", unknown("tool", name, tools))])
        given = {key: value for key, value in arguments.items() if value is not None}
        known = tool.parameters["properties"]
        if strangers := [key for key in given if key not in known]:
            raise InvalidArguments(
                [
                    Problem(clip(key), unknown("argument", key, known))
                    for key in strangers[:MAX_STRANGERS]
                ]
            )
        result: Result | InputRequiredResult = await tool.run(given, context)
        return result if isinstance(result, InputRequiredResult) else success(result)
    except MCPError:
        raise
    except BiltError as error:
        return _failure(error, name)
    except ToolError as error:
        return _failure_behind(error, name)
    except (SystemExit, KeyboardInterrupt) as error:
        # Raised by code below a tool; it must not end the server.
        return _crashed(error, name)


def _failure_behind(error: ToolError, name: str) -> CallToolResult:
    cause = error.__cause__
    if isinstance(cause, BiltError):
        return _failure(cause, name)
    if isinstance(cause, ValidationError):
        return failure(InvalidArguments([problem_of(found) for found in cause.errors()]))
    # No tool of ours raises it; the SDK does, for an answer that fits no question.
    if type(cause) is ToolError:
        return failure(ConfirmationRequired(_NO_ANSWER))
    return _crashed(cause or error, name)


def _failure(error: BiltError, name: str) -> CallToolResult:
    if not isinstance(error, StoreUnavailable):
        return failure(error)
    error_id = str(uuid4())
    log.error("tool %s could not use the store, error_id %s: %s", name, error_id, error)
    return failure_of(error.error, {"error_id": error_id, "message": error.message})


def _crashed(error: BaseException, name: str) -> CallToolResult:
    error_id = str(uuid4())
    log.error("tool %s failed unexpectedly, error_id %s", name, error_id, exc_info=error)
    told = (
        "bilt-mcp failed; the workflow, if one runs, goes on. Try once more; if it fails again, tell the user the "
        "error_id, under which the server's log has the cause."
    )
    return failure_of("Internal error", {"error_id": error_id, "message": told})


def _one_paragraph(docstring: str) -> str:
    return " ".join(docstring.split())


def _input_schema(schema: dict[str, Any]) -> dict[str, Any]:
    lean_schema = lean(schema)
    for field in lean_schema["properties"].values():
        if field.get("format") == "uuid":
            del field["pattern"]  # says the same in 90 characters
        if field.get("maximum") == MOST:
            del field["maximum"]  # what any number stays below
        if field.get("default") in ("", -1):
            del field["default"]  # stands for "omitted"
        if isinstance(field.get("enum"), list) and "" in field["enum"]:
            field["enum"].remove("")
    return lean_schema
