"""The types of arguments that tools share, and their checks (CONTRACT section 2)."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

_UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
MOST = 2**53
"""What numbers without a limit of their own are held to: JSON's own."""
NAME = r"^[A-Za-z0-9_-]+$"

PATTERNS = {
    _UUID: "must be a UUID, such as 550e8400-e29b-41d4-a716-446655440000",
    NAME: "must be letters, digits, hyphens and underscores",
}
"""What a pattern means, for who did not keep to it."""


def storable(text: str) -> str:
    """Refuse what cannot be kept or passed to a process: NUL, and lone surrogates."""
    if "\0" in text:
        raise PydanticCustomError(
            "nul", "contains a NUL character, which cannot be kept; remove it"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "contains a lone surrogate") from None
    return text


def as_id(text: str) -> str | None:
    """An id as the store has it, in lower case; None for text that can be none."""
    return text.lower() if re.fullmatch(_UUID, text) else None


def _id(told: str) -> Any:
    return Field(pattern=_UUID, description=told, json_schema_extra={"format": "uuid"})


SessionId = Annotated[str, _id("From bilt_get_session."), AfterValidator(str.lower)]
ProjectId = Annotated[str, _id("From bilt_list_projects."), AfterValidator(str.lower)]
WorkflowId = ProjectId
ActionId = Annotated[str, _id("From pending_action."), AfterValidator(str.lower)]
Text = Annotated[str, AfterValidator(storable)]
Reason = Annotated[Text, Field(max_length=500, description="Kept in the history.")]
