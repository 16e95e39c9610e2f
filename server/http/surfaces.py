"""Which system a path belongs to, and how its callers say who they are: one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import Surface

Credential = Literal["bearer", "cookie", "none", "unless local"]
"""`unless local`: a bearer, but none where only this machine can connect."""


@dataclass(frozen=True)
class Way:
    """What the gate has to know of a path."""

    surface: Surface
    credential: Credential
    writes: bool = False
    """Whether a POST changes something that a key for reading must not."""


_EXACT = {
    "/mcp": Way("mcp", "bearer"),
    "/chat": Way("chat", "cookie", writes=True),
    "/auth/login": Way("chat", "none"),
    "/health": Way("rest", "none"),
    "/metrics": Way("rest", "unless local"),
    "/openapi.json": Way("rest", "none"),
}
_BELOW = (
    ("/mcp/", Way("mcp", "bearer")),
    ("/chat/", Way("chat", "cookie", writes=True)),
    ("/auth/", Way("chat", "cookie")),
    ("/health/", Way("rest", "none")),
    ("/.well-known/", Way("rest", "none")),
)
_REST = Way("rest", "bearer", writes=True)
_WAITING = Way("rest", "bearer")


def way_of(path: str) -> Way:
    """Whose path it is. What nobody has is the REST surface's: a stranger does not even learn that it is not there."""
    found = _EXACT.get(path)
    if found is not None:
        return found
    for beginning, way in _BELOW:
        if path.startswith(beginning):
            return way
    return _WAITING if path.startswith("/v1/") and path.endswith("/wait") else _REST
