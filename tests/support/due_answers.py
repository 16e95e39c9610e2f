"""What a line of JSON-RPC must be answered with.

It is worked out from the bytes alone, by the standard library's JSON and the rules of JSON-RPC; no code of the
server is asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

Json = dict[str, Any]
Kind = Literal["error", "refused", "any"]

MAX_LINE = 4 * 1024 * 1024
MAX_DEPTH = 64
ERRORS = frozenset(
    {
        *("Invalid arguments", "Session not found", "Project not found", "Workflow not found"),
        *("Cannot cancel workflow", "Cannot resume workflow", "Cannot pause workflow"),
        *("Workflow already active", "No workflow configured", "Invalid workflow file"),
        *("Confirmation required", "Nothing to confirm", "Idempotency key reused"),
        *("Project already exists", "Rate limit exceeded"),
    }
)
"""CONTRACT section 2, but for "Internal error": bad input is no reason for that."""
AT_FAULT = -32603
"""JSON-RPC's code that says that the server is at fault."""


@dataclass(frozen=True)
class Due:
    """An answer that must come, once; an `optional` one may."""

    request_id: Any
    kind: Kind = "any"
    optional: bool = False
    or_null: bool = False
    """It may be refused as a line instead, before anybody looks for its id."""


def judge(answer: Json, kind: Kind) -> None:
    """An answer is an error that is documented, or, where something may be asked for so badly, a success."""
    assert answer["jsonrpc"] == "2.0"
    if "error" in answer:
        error = answer["error"]
        assert error["code"] != AT_FAULT, answer
        assert 0 < len(error["message"]) < 500
        return
    assert kind != "error", answer
    content = answer["result"].get("structuredContent")
    if content is None:
        assert kind == "any", answer
        return
    assert json.loads(answer["result"]["content"][0]["text"]) == content
    assert bool(answer["result"].get("isError")) == ("error" in content)
    if "error" in content:
        assert set(content) == {"error", "details"}
        assert content["error"] in ERRORS, content
        assert 0 < len(content["details"]["message"]) < 500
    else:
        assert kind == "any", content


NULL_ERROR = Due(None, "error")


def due(line: bytes, kind: Kind = "any") -> Due | None:
    """The answer to one line; None when there must be none."""
    if len(line) > MAX_LINE:
        return NULL_ERROR
    if not line.strip(b" \t\r"):
        return None
    try:
        text = line.strip(b" \t\r").decode()
        found = json.loads(text, parse_constant=_refuse)
        # A name may come twice, and the first value be too deep.
        depth = _depth(json.loads(text, object_pairs_hook=_values))
    except (ValueError, RecursionError):
        return NULL_ERROR
    if not isinstance(found, dict) or depth > MAX_DEPTH:
        return NULL_ERROR
    return _due_object(cast("Json", found), kind)


def _due_object(found: Json, kind: Kind) -> Due | None:
    request_id = found.get("id")
    sound = isinstance(request_id, int | str) and not isinstance(request_id, bool)
    sound = sound and not has_surrogate(request_id)
    if "method" in found:
        if "id" in found:
            return Due(request_id, kind) if sound else NULL_ERROR
        well = (
            found.get("jsonrpc") == "2.0"
            and isinstance(found["method"], str)
            and isinstance(found.get("params"), dict | None)
            and not has_surrogate(found)
        )
        return None if well else NULL_ERROR
    answers = isinstance(found.get("result"), dict) or isinstance(found.get("error"), dict)
    # Nobody asked for it: there is nothing to say, but that it is no message may be said.
    return Due(request_id if sound else None, "error", optional=answers)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _values(pairs: list[tuple[str, Any]]) -> list[Any]:
    return [value for _, value in pairs]


def _depth(value: Any) -> int:
    level: list[Any] = [value]
    depth = 0
    while lists := list(filter(_is_list, level)):
        depth += 1
        level = [part for whole in lists for part in whole]
    return depth


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def has_surrogate(value: Any) -> bool:
    """Whether a lone surrogate is anywhere in it."""
    return any("\ud800" <= char <= "\udfff" for char in json.dumps(value, ensure_ascii=False))
