"""What is wrong with what a caller sent, in words for him."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from bilt_mcp.state import Problem

from .arguments import PATTERNS

MAX_NAME = 64
"""How much of a name is compared and told: its sender may have sent four megabytes."""

_FRIENDLIER = {
    "string_unicode": "contains a lone surrogate, which is no character; send valid Unicode text",
    "missing": "is required",
    "too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} characters",
}


def problem_of(found: Any) -> Problem:
    """One of pydantic's errors: which field, and what is wrong with it as the rest of a sentence."""
    field = ".".join(clip(str(part)) for part in found["loc"]) or "arguments"
    details = found.get("ctx", {})
    friendlier = PATTERNS.get(details.get("pattern")) or _FRIENDLIER.get(found["type"])
    told = friendlier.format_map(details) if friendlier else found["msg"]
    return Problem(field, told[:1].lower() + told[1:])


def unknown(kind: str, name: str, known: Collection[str]) -> str:
    """That there is no such `kind` of thing, and what was meant instead, if that can be told."""
    close = [f'"{match}"' for match in difflib.get_close_matches(name[:MAX_NAME], known, 2)]
    hint = (
        f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    )
    return f"no such {kind}; {hint}"


def clip(text: str) -> str:
    """As much of a name as is told, as valid Unicode."""
    shown = text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"
    return shown.encode("utf-8", "replace").decode("utf-8")
