"""From lines to JSON-RPC messages: what is no message gets an error, never silence, and never ends the server.

The limits are ours; the codes are JSON-RPC 2.0's. The SDK's own reader has no limit for a line and leaves a
line that it cannot read unanswered.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, cast

from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from .lines import MAX_LINE_BYTES

MAX_DEPTH = 64
MAX_ERROR_CHARS = 400
MAX_VALUES = 100_000
"""A list of a million empty lists takes 25 times the room of its line."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""Possessive, and a string may lack its end: no character is ever looked at twice."""
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


class NoMessage(Exception):
    """A line that is no message; `answer` is what its sender gets."""

    def __init__(self, code: int, message: str, request_id: str | int | None = None) -> None:
        super().__init__(message)
        self.answer = JSONRPCError(
            jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=message)
        )


def parse(line: bytes | None) -> JSONRPCMessage:
    """The message in a line. Raises `NoMessage`."""
    if line is None:
        raise NoMessage(INVALID_REQUEST, f"A line may have at most {MAX_LINE_BYTES} bytes")
    if line.count(b",") > MAX_VALUES:
        raise NoMessage(INVALID_REQUEST, f"A message may have at most {MAX_VALUES} values")
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_too_deep(line):
        raise NoMessage(PARSE_ERROR, f"JSON may be nested at most {MAX_DEPTH} deep")
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise NoMessage(PARSE_ERROR, f"This line is not JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        what = "Batches are not supported" if isinstance(found, list) else "Not an object"
        raise NoMessage(INVALID_REQUEST, f"{what}: send one JSON-RPC message a line")
    found = cast(dict[str, Any], found)
    request_id = _sound_id(found.get("id"))
    if "method" in found and "id" in found and request_id is None:
        # The SDK would take it for a notification, and its sender would wait for ever.
        raise NoMessage(INVALID_REQUEST, "An id must be an integer or valid Unicode text")
    if _ESCAPED_SURROGATE.search(line) and _has_surrogate(_without_arguments(found)):
        # In a tool's arguments it is the tool's to refuse.
        raise NoMessage(INVALID_REQUEST, "This message has a lone surrogate in it", request_id)
    try:
        return jsonrpc_message_adapter.validate_python(found, by_name=False)
    except ValidationError as error:
        raise NoMessage(
            INVALID_REQUEST, "This line is no JSON-RPC 2.0 message", request_id
        ) from error


def brief(message: JSONRPCMessage) -> JSONRPCMessage:
    """The message; an error that repeats megabytes of what was asked is cut to `MAX_ERROR_CHARS`."""
    if not isinstance(message, JSONRPCError):
        return message
    error = message.error
    cut: dict[str, Any] = {}
    if len(error.message) > MAX_ERROR_CHARS:
        cut["message"] = error.message[: MAX_ERROR_CHARS - 1] + "…"
    if len(data := str(error.data)) > MAX_ERROR_CHARS:
        cut["data"] = data[: MAX_ERROR_CHARS - 1] + "…"
    if not cut:
        return message
    return message.model_copy(update={"error": error.model_copy(update=cut)})


def _is_too_deep(line: bytes) -> bool:
    # Passes over the whole line, each of which takes the innermost level away: a loop over a million brackets would
    # hold up everybody for seconds.
    left = _STRINGS.sub(b"", line).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        left = left.replace(b"[]", b"")
    return b"[]" in left or left.count(b"[") > MAX_DEPTH


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _sound_id(found: Any) -> str | int | None:
    if isinstance(found, str) and not _SURROGATE.search(found):
        return found
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _without_arguments(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params")
    if message.get("method") != "tools/call" or not isinstance(params, dict):
        return message
    rest = cast(dict[str, Any], params).copy()
    rest.pop("arguments", None)
    return {**message, "params": rest}


def _has_surrogate(value: Any) -> bool:
    return bool(_SURROGATE.search(json.dumps(value, ensure_ascii=False)))
