"""Access tokens of an OAuth issuer instead of keys: JWTs that it has signed for this server, and for nobody else.

A server without an issuer loads nothing of this.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from bilt_mcp.state import Account
from bilt_mcp.tools import shown_name

from .identity import Identity
from .issuer_keys import IssuerKeys, IssuerUnavailable

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Signatures with a private key only: `none` is no signature, and HS256 can be made with what the issuer publishes."""
READ, WRITE = "bilt:read", "bilt:write"
SCOPES = (READ, WRITE)
LEEWAY_SECONDS = 10
ACCOUNT_CLAIM = "bilt_account"
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_REQUIRED = ["exp", "iss", "aud", "sub"]


class TokenRefused(Exception):
    """Not a token that lets anybody in. `guessed`: nothing says that the issuer has made it."""

    def __init__(self, told: str, *, guessed: bool = True, scope: bool = False) -> None:
        super().__init__(told)
        self.guessed = guessed
        self.scope = scope
        """Whether it is good, but for too little."""


@dataclass(frozen=True)
class Token:
    """A token that is good."""

    identity: Identity
    bucket: str
    """What its requests are counted under: all tokens of a person are one."""
    expires_at: float
    """Seconds since 1970."""
    key_name: str | None


class Tokens:
    """Looks at the tokens of one issuer that are meant for one audience."""

    def __init__(self, issuer: str, audience: str) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = IssuerKeys(issuer)

    async def look(self, token: bytes) -> Token:
        """Whose it is. Raises `TokenRefused` and `IssuerUnavailable`."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise TokenRefused("This is no access token.") from error
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise TokenRefused("The token is not signed as this server asks for.")
        key = await self._keys.find(header.get("kid"))
        if key is None:
            raise TokenRefused("The issuer has no such key.")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=[self._issuer, f"{self._issuer}/"],
                leeway=LEEWAY_SECONDS,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenRefused("The token has expired.", guessed=False) from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TokenRefused(
                "The token is not for this server, or was not made by its issuer."
            ) from error
        return self._token(claims, key.key_id)

    async def still_good(self, token: Token) -> bool:
        """Whether it would be let in now: it has time left, and its key was not taken back."""
        if time.time() > token.expires_at + LEEWAY_SECONDS:
            return False
        try:
            return await self._keys.find(token.key_name) is not None
        except IssuerUnavailable:
            return False

    def _token(self, claims: Mapping[str, Any], key_name: str | None) -> Token:
        scopes = _scopes(claims)
        if not set(scopes) & set(SCOPES):
            told = f"The token has neither the scope {READ} nor {WRITE}."
            raise TokenRefused(told, guessed=False, scope=True)
        subject = str(claims["sub"])
        digest = hashlib.sha256(f"{self._issuer}\0{subject}".encode()).hexdigest()[:32]
        account = claims.get(ACCOUNT_CLAIM, f"oauth-{digest}")
        if not isinstance(account, str) or not _ACCOUNT.fullmatch(account):
            told = f"The claim {ACCOUNT_CLAIM} of the token is no name of an account."
            raise TokenRefused(told, guessed=False)
        name = shown_name(str(claims.get("email") or subject))
        read_only = WRITE not in scopes
        identity = Identity(
            account=Account(account),
            name=name or "an OAuth subject",
            # Not the same for both: who has a server of his own by this has one that may write, or one that may not.
            credential=f"oauth:{digest}:{account}:{'read' if read_only else 'write'}",
            read_only=read_only,
        )
        return Token(identity, f"oauth:{digest}", float(claims["exp"]), key_name)


def _scopes(claims: Mapping[str, Any]) -> Sequence[str]:
    given = claims.get("scope", claims.get("scp", ""))
    return given.split() if isinstance(given, str) else [str(each) for each in given or ()]


def metadata(resource: str, issuer: str) -> dict[str, Any]:
    """What a client reads to learn where tokens for `resource` come from (RFC 9728)."""
    return {
        "resource": resource,
        "resource_name": "bilt-mcp",
        "authorization_servers": [issuer],
        "scopes_supported": list(SCOPES),
        "bearer_methods_supported": ["header"],
    }
