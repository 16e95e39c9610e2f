"""Who asks, once the gate has let him in, and what is left of his limit: the gate notes it, the routes read it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Scope

from bilt_mcp.state import Account, Window

_IDENTITY = "bilt.identity"
_WINDOW = "bilt.window"


@dataclass(frozen=True)
class Identity:
    """A caller with a credential that is good."""

    account: Account
    name: str
    """What the credential is called, for the history: `key ci`, `alice@example.com`, or `no key`."""
    credential: str
    """Tells this credential from all others: one MCP server, one rate limit each."""
    read_only: bool = False
    person: bool = False
    """Whether it came by a login: a person at a page, who may answer gates."""
    key_name: str | None = None
    """The name of the key that it is, or was got for."""
    expires_at: int | None = None
    """When the login ends at the latest, milliseconds since 1970."""


def set_identity(scope: Scope, identity: Identity) -> None:
    """Let the routes below know who asks."""
    scope[_IDENTITY] = identity


def identity_of(scope: Scope) -> Identity:
    """Who asks. Only for routes that the gate lets nobody reach without a credential."""
    identity: Identity = scope[_IDENTITY]
    return identity


def set_window(scope: Scope, window: Window) -> None:
    """Let a request past its limit through to a route that refuses it in its own words."""
    scope[_WINDOW] = window


def window_of(scope: Scope) -> Window | None:
    """The limit that a request is past and was let through with; None where it is within its limit."""
    window: Window | None = scope.get(_WINDOW)
    return window
