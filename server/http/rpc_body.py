"""What a posted body is, before the SDK reads it: that refuses with a validator's report, and lets some things hang."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from .rpc_error import INVALID_REQUEST, PARSE_ERROR

_VERSION = "io.modelcontextprotocol/protocolVersion"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of JSON-RPC."""

    method: str | None
    """None: it answers a question of ours."""
    id: str | int | None
    """Of a request; None: nothing is to be answered."""
    is_stateless: bool = False
    """Whether it says of itself that it is of the era without sessions."""


class NoMessage(Exception):
    """A body that is none; `code` is the one of JSON-RPC."""

    def __init__(self, code: int, told: str) -> None:
        super().__init__(told)
        self.code = code


def read_message(body: bytes) -> Message:
    """The message in a body. Raises `NoMessage`."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise NoMessage(PARSE_ERROR, "The body is not JSON.") from None
    if isinstance(found, list):
        raise NoMessage(INVALID_REQUEST, "Batches are not taken: post each message by itself.")
    if not isinstance(found, dict):
        raise NoMessage(INVALID_REQUEST, "The body must be one JSON-RPC message, an object.")
    given = cast("dict[str, Any]", found)
    if given.get("jsonrpc") != "2.0":
        raise NoMessage(INVALID_REQUEST, 'The message has no "jsonrpc": "2.0".')
    method, request_id = given.get("method"), given.get("id")
    if method is None and ("result" in given or "error" in given):
        return Message(None, None)
    if not isinstance(method, str):
        raise NoMessage(INVALID_REQUEST, "The message has no method, which is a string.")
    if "id" in given and (not isinstance(request_id, str | int) or isinstance(request_id, bool)):
        raise NoMessage(INVALID_REQUEST, "The id of a request must be a string or an integer.")
    params = given.get("params")
    if not isinstance(params, dict | None):
        raise NoMessage(INVALID_REQUEST, "The params of a message must be an object.")
    return Message(method, request_id, _is_stateless(cast("dict[str, object] | None", params)))


def _is_stateless(params: dict[str, object] | None) -> bool:
    meta = None if params is None else params.get("_meta")
    return isinstance(meta, dict) and _VERSION in meta
