"""The bodies of errors, for the OpenAPI document (CONTRACT sections 3 and 4). `errors` writes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class RestError(BaseModel):
    """An error of an invocation's route."""

    model_config = ConfigDict(extra="forbid")

    error: str = Field(description="What happened, in words.")
    code: str = Field(description="What happened, for programs.")
    requestId: str = Field(description="Also in the header X-Request-Id, and in the server's log.")
    reasonClass: str
    details: dict[str, Any] | None = None
    hint: str | None = Field(None, description="Which request comes next.")


class ChatError(BaseModel):
    """An error of a chat's route."""

    model_config = ConfigDict(extra="forbid")

    error: str = Field(description="What happened, for programs.")
    message: str = Field(description="What happened, in words.")
