"""Who is let in: from the credential of a request to the identity that it stands for.

Guessing is limited by address, and that is looked at before a secret is looked up. Only for a secret that was good
before, from an address that has not failed of late in this process, the look is left out: it would cost as much as
the request.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from bilt_mcp.server.config import LOCAL_ACCOUNT
from bilt_mcp.state import AccessStore, Account, Admission, Window

from .errors import Refused
from .head import Head
from .identity import Identity
from .settings import HttpSettings
from .surfaces import Way
from .whereabouts import METADATA, base_url, is_local

if TYPE_CHECKING:
    from .oauth import Tokens

KEY_BEGINS = b"bilt_"
COOKIE = "session_id"
"""The cookie of a login (CONTRACT section 4)."""
MOST_SECRET_BYTES = 8192
MOST_REMEMBERED = 4096
WINDOW_SECONDS = 60.0

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Entry:
    """A caller who was let in."""

    identity: Identity
    window: Window | None = None
    """What is left of his limit; None where he has none."""
    still_good: Callable[[], Awaitable[bool]] | None = None
    """Whether he would be let in now, too; None where that never changes."""
    group: str = ""
    """Those for whom that is one question have the same."""


NOBODY = Entry(Identity(Account(""), "nobody", "none", read_only=True))
"""Whoever asks for what needs no credential."""


class Doorman:
    """Lets callers in, for one server."""

    def __init__(self, settings: HttpSettings, access: Callable[[], AccessStore]) -> None:
        self._settings = settings
        self._access = access
        self._is_local = is_local(settings)
        self._tokens: Tokens | None = None
        if settings.oauth_issuer is not None and settings.oauth_audience is not None:
            from .oauth import Tokens

            self._tokens = Tokens(settings.oauth_issuer, settings.oauth_audience)
        self._everybody = Entry(Identity(Account(LOCAL_ACCOUNT), "no key", "none", person=True))
        self._known: dict[bytes, None] = {}
        self._failed: dict[str, float] = {}

    async def enter(self, way: Way, head: Head, address: str) -> Entry:
        """Who asks. Counts the request. Raises `Refused` (401, 429) and `StoreUnavailable`."""
        if way.credential == "none" or (way.credential == "unless local" and self._is_local):
            return NOBODY
        if self._settings.no_auth:
            return self._everybody
        if way.credential == "cookie":
            return await self._by_cookie(head, address)
        return await self._by_key(way, head, address)

    async def _by_key(self, way: Way, head: Head, address: str) -> Entry:
        given = head.get(b"authorization")
        if given is None:
            raise self.unauthorized(way, "This needs a key. Send it as Authorization: Bearer KEY.")
        scheme, _, secret = given.partition(b" ")
        secret = secret.strip()
        if scheme.lower() != b"bearer" or not secret:
            raise self.unauthorized(way, "Send the key as Authorization: Bearer KEY.")
        if self._tokens is not None and not secret.startswith(KEY_BEGINS):
            return await self._by_token(self._tokens, way, secret, address)
        admission = await self.admit(secret, address, self._settings.key_rate, way=way)
        return self._entry(admission)

    async def _by_token(self, tokens: Tokens, way: Way, secret: bytes, address: str) -> Entry:
        from .issuer_keys import IssuerUnavailable
        from .oauth import TokenRefused

        digest = hashlib.sha256(secret).digest()
        if digest not in self._known or self._has_failed(address):
            await self.look(address)
        try:
            token = await tokens.look(secret[: MOST_SECRET_BYTES + 1])
        except IssuerUnavailable as error:
            told, again = "The issuer's keys cannot be had now.", {"Retry-After": "60"}
            raise Refused(503, "issuer_unavailable", told, headers=again) from error
        except TokenRefused as error:
            self._known.pop(digest, None)
            if error.guessed:
                await self.failed(address)
            if error.scope:
                challenge = self._challenge(way, "insufficient_scope")
                raise Refused(403, "insufficient_scope", str(error), headers=challenge) from error
            raise self.unauthorized(way, str(error), "invalid_token") from error
        self._remember(digest)
        window = await self._access().hit(token.bucket, self._settings.key_rate)
        return Entry(
            token.identity,
            window if window.limit else None,
            partial(tokens.still_good, token),
            digest.hex(),
        )

    async def _by_cookie(self, head: Head, address: str) -> Entry:
        given = head.cookie(COOKIE)
        if not given:
            raise self.unauthorized(_CHAT, "Log in first: POST /auth/login.")
        secret = given.encode("latin-1")
        rate = self._settings.login_rate
        admission = await self.admit(secret, address, rate, kind="login")
        return self._entry(admission)

    async def admit(
        self,
        secret: bytes,
        address: str,
        limit: int,
        *,
        kind: Literal["key", "login"] = "key",
        way: Way | None = None,
    ) -> Admission:
        """Who has this secret, and count one more request of his. `address` is `address_of(scope)`.

        Raises `Refused`: 401 for a secret that nobody has, 429 after too many such from the address. That the request
        itself is one too many, the window says.
        """
        if len(secret) > MOST_SECRET_BYTES:
            secret = b""
        digest = hashlib.sha256(secret).digest()
        if digest not in self._known or self._has_failed(address):
            await self.look(address)
        access = self._access()
        admit = access.admit if kind == "key" else access.admit_login
        admission = await admit(digest, limit)
        if admission is not None:
            self._remember(digest)
            return admission
        self._known.pop(digest, None)
        await self.failed(address)
        if kind == "login":
            raise self.unauthorized(_CHAT, "This login is over. Log in again: POST /auth/login.")
        raise self.unauthorized(way or _CHAT, "No key in use is this one.", "invalid_token")

    async def look(self, address: str) -> None:
        """Raises `Refused` when this address has guessed too often."""
        rate = self._settings.failure_rate
        if rate:
            window = await self._access().look(f"fail:{address}", rate)
            if window.exceeded:
                raise too_many(window, "Too many failed authentications from this address.")

    async def failed(self, address: str) -> None:
        """Count a failed authentication. Raises `Refused` when it was one too many."""
        rate = self._settings.failure_rate
        if rate:
            if len(self._failed) >= MOST_REMEMBERED:
                self._failed.clear()
            self._failed[address] = time.monotonic()
            window = await self._access().hit(f"fail:{address}", rate)
            if window.exceeded:
                raise too_many(window, "Too many failed authentications from this address.")

    def unauthorized(self, way: Way, told: str, error: str | None = None) -> Refused:
        """The answer to whoever does not say who he is, or says it wrongly."""
        headers = {} if way.surface == "chat" else self._challenge(way, error)
        hint = None if way.surface == "chat" else "Keys are made with: bilt-mcp keys create NAME"
        return Refused(401, "unauthorized", told, hint=hint, headers=headers)

    def _challenge(self, way: Way, error: str | None) -> dict[str, str]:
        metadata = scope = None
        if self._tokens is not None:
            from .oauth import SCOPES

            scope = " ".join(SCOPES)
            below = "/mcp" if way.surface == "mcp" else ""
            metadata = f"{base_url(self._settings)}{METADATA}{below}"
        told = {"error": error, "scope": scope, "resource_metadata": metadata}
        shown = ", ".join(f'{name}="{value}"' for name, value in told.items() if value)
        return {"WWW-Authenticate": f"Bearer {shown}".strip()}

    def _entry(self, admission: Admission) -> Entry:
        key, login = admission.key, admission.login

        async def still_good() -> bool:
            return await self._access().good(key.id, login.id if login else None)

        identity = Identity(
            account=key.account,
            name=f"login of key {key.name}" if login else f"key {key.name}",
            credential=f"login:{login.id}" if login else f"key:{key.id}",
            read_only=key.read_only,
            person=login is not None,
            key_name=key.name,
            expires_at=login.expires_at if login else None,
        )
        window = admission.window if admission.window.limit else None
        return Entry(identity, window, still_good, identity.credential)

    def _remember(self, digest: bytes) -> None:
        if digest not in self._known:
            if len(self._known) >= MOST_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[digest] = None

    def _has_failed(self, address: str) -> bool:
        at = self._failed.get(address)
        if at is None:
            return False
        if time.monotonic() - at > WINDOW_SECONDS:
            del self._failed[address]
            return False
        return True


_CHAT = Way("chat", "cookie")


def too_many(window: Window, told: str) -> Refused:
    """The answer to a request that was one too many."""
    details = limit_details(window)
    after = details["retry_after_seconds"]
    return Refused(
        429,
        "rate_limited",
        f"{told} At most {window.limit} in 60 seconds; the next one is possible in {after} s.",
        details=details,
        headers={"Retry-After": str(after)},
    )


def limit_details(window: Window) -> dict[str, int]:
    """The details of an error that says so (CONTRACT section 2); `reset` is in seconds since 1970, rounded up."""
    return {
        "limit": window.limit,
        "remaining": 0,
        "reset": _epoch_seconds(window),
        # At least one: nobody is to ask again at once.
        "retry_after_seconds": max(1, math.ceil(window.reset_at / 1000 - time.time())),
    }


def limit_headers(window: Window) -> Headers:
    """The three headers of CONTRACT section 3. X-RateLimit-Reset is in seconds since 1970, rounded up."""
    return [
        (b"x-ratelimit-limit", b"%d" % window.limit),
        (b"x-ratelimit-remaining", b"%d" % max(window.remaining, 0)),
        (b"x-ratelimit-reset", b"%d" % _epoch_seconds(window)),
    ]


def _epoch_seconds(window: Window) -> int:
    return math.ceil(window.reset_at / 1000)
