"""The keys with which an OAuth issuer signs its tokens: fetched when needed, kept for a while, never fetched often."""

from __future__ import annotations

import logging
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, TypeGuard
from urllib.parse import urlsplit, urlunsplit

import anyio
import anyio.to_thread
import jwt
from pydantic import BaseModel

from .whereabouts import is_loopback

log = logging.getLogger("bilt_mcp.server")

FRESH_SECONDS = 300.0
"""How long keys are believed; one that the issuer takes back is good for as long at most."""
STALE_SECONDS = 3600.0
"""How long they are believed while the issuer does not answer."""
PAUSE_SECONDS = 60.0
"""The least time between two fetches: a token names its key before it has proved anything."""
FETCH_SECONDS = 5.0
MOST_BYTES = 262_144
MOST_KEYS = 64
_KINDS = ("RSA", "EC", "OKP")
"""Not `oct`: a secret that is published is none."""


class _Metadata(BaseModel):
    issuer: str
    jwks_uri: str


class _KeySet(BaseModel):
    keys: list[dict[str, Any]]


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be had; the text says why."""


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = -STALE_SECONDS
        self._tried_at = -PAUSE_SECONDS
        self._why = "it has not been asked"
        self._fetching = anyio.Lock()

    async def find(self, name: str | None) -> jwt.PyJWK | None:
        """The key of this name (`kid`), None where the issuer has none. Raises `IssuerUnavailable`."""
        now = time.monotonic()
        if now - self._fetched_at > FRESH_SECONDS or name not in self._keys:
            async with self._fetching:
                if time.monotonic() - self._tried_at > PAUSE_SECONDS:
                    await self._fetch()
        if time.monotonic() - self._fetched_at > STALE_SECONDS:
            raise IssuerUnavailable(f"the keys of {self._issuer} cannot be had: {self._why}")
        return self._keys.get(name)

    async def _fetch(self) -> None:
        try:
            self._keys = await anyio.to_thread.run_sync(_fetch_keys, self._issuer)
            self._fetched_at = time.monotonic()
        except (OSError, ValueError, HTTPException, jwt.PyJWTError) as error:
            self._why = str(error)
            log.warning("cannot fetch the keys of %s: %s", self._issuer, error)
        finally:
            self._tried_at = time.monotonic()


def _fetch_keys(issuer: str) -> dict[str | None, jwt.PyJWK]:
    published = _KeySet.model_validate_json(_get(_where_keys_are(issuer))).keys
    found: dict[str | None, jwt.PyJWK] = {}
    for key in published[:MOST_KEYS]:
        name = key.get("kid")
        if key.get("kty") in _KINDS and key.get("use", "sig") == "sig" and _is_name(name):
            try:
                found[name] = jwt.PyJWK(key)
            except jwt.PyJWTError as error:
                log.info("a key of %s cannot be used: %s", issuer, error)
    return found


def _is_name(kid: object) -> TypeGuard[str | None]:
    return kid is None or isinstance(kid, str)


def _where_keys_are(issuer: str) -> str:
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    # RFC 8414 puts the well-known part before the issuer's path, OpenID Connect behind it.
    ways = (
        f"/.well-known/oauth-authorization-server{path}",
        f"{path}/.well-known/openid-configuration",
    )
    problem: Exception | None = None
    for way in ways:
        try:
            url = urlunsplit((parts.scheme, parts.netloc, way, "", ""))
            told = _Metadata.model_validate_json(_get(url))
        except (OSError, ValueError, HTTPException) as error:
            problem = problem or error
            continue
        if told.issuer.rstrip("/") != issuer:
            raise ValueError(f"its metadata is of another issuer, {told.issuer!r}")
        where = urlsplit(told.jwks_uri)
        if where.scheme != "https" and not (
            where.scheme == "http" and is_loopback(where.hostname or "")
        ):
            raise ValueError("its jwks_uri is not https://")
        return urlunsplit(where)
    raise ValueError(f"it has no metadata: {problem}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Where keys come from is what was configured, and what that says; not where it is sent on to."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Never."""
        return


_OPENER = urllib.request.build_opener(_NoRedirect)


def _get(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    try:
        with _OPENER.open(request, timeout=FETCH_SECONDS) as response:
            body: bytes = response.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    if len(body) > MOST_BYTES:
        raise ValueError(f"{url} has more than {MOST_BYTES} bytes")
    return body
