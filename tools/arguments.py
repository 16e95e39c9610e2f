"""The types of arguments that tools share, and their checks (CONTRACT section 2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

_UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"


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


SessionId = Annotated[
    str,
    Field(
        pattern=_UUID,
        description="Session id, from bilt_get_session.",
        json_schema_extra={"format": "uuid"},
    ),
    AfterValidator(str.lower),
]
ProjectId = Annotated[
    str,
    Field(pattern=_UUID, json_schema_extra={"format": "uuid"}),
    AfterValidator(str.lower),
]
WorkflowId = ProjectId
Text = Annotated[str, AfterValidator(storable)]
