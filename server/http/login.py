"""Logging in with a key, for people at a page (CONTRACT section 4): the key is exchanged for a cookie.

The cookie is 256 random bits, new at each login, of which only a hash is kept; it ends with its time, with two hours
of silence, with the logout, and with its key. No script can read it (HttpOnly).

A page of another site cannot use it (CSRF), for four reasons, of which each alone would do. The browser does not send
it along (SameSite=Strict). What a browser sends for a page of another site has an Origin or a Sec-Fetch-Site that says
so, which the gate refuses on every route of the chat, the login too: else a page could log somebody in as its own
author. A request with neither does not come from a page at all, but from a program such as curl, whose cookie nobody
can borrow. A form cannot send JSON, and a script needs a preflight for it, which a foreign page does not pass. And
nothing changes by a GET.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bilt_mcp.state import digest_of, iso, iso_or_none

from .chat_models import LoggedIn, LoginRequest
from .chat_requests import read, told_as
from .doorman import COOKIE, too_many
from .head import address_of
from .identity import identity_of
from .site import Site
from .whereabouts import is_loopback

LOGIN_SECONDS = 12 * 3600.0
IDLE_SECONDS = 2 * 3600.0
SECRET_BYTES = 32


def routes(site: Site) -> list[BaseRoute]:
    """The routes of logins."""
    desk = _LoginDesk(site)
    return [
        Route("/auth/login", desk.login, methods=["POST"]),
        Route("/auth/logout", desk.logout, methods=["POST"]),
        Route("/auth/session", desk.session, methods=["GET"]),
    ]


class _LoginDesk:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def login(self, request: Request) -> Response:
        """Serve POST /auth/login. A wrong key counts as a failed authentication of its address."""
        with told_as("login_error", "Failed to log in"):
            asked = await read(request, LoginRequest)
            admission = await self._site.doorman.admit(
                asked.key.encode("utf-8", "replace"),
                address_of(request.scope),
                self._site.settings.key_rate,
            )
            if admission.window.exceeded:
                raise too_many(admission.window, "Rate limit exceeded.")
            await self._end(request)  # what somebody may have planted before is worth nothing now
            secret, key = secrets.token_urlsafe(SECRET_BYTES), admission.key
            login = await self._site.access.open_login(
                key.id, digest_of(secret), LOGIN_SECONDS, IDLE_SECONDS
            )
            told = LoggedIn(
                account=str(key.account),
                name=key.name,
                read_only=key.read_only,
                expires_at=iso(login.expires_at),
            )
            response = JSONResponse(told.model_dump())
            response.set_cookie(
                COOKIE,
                secret,
                max_age=int(LOGIN_SECONDS),
                secure=_is_secure(request),
                httponly=True,
                samesite="strict",
            )
            return response

    async def logout(self, request: Request) -> Response:
        """Serve POST /auth/logout."""
        with told_as("logout_error", "Failed to log out"):
            await self._end(request)
            response = Response(status_code=204)
            response.delete_cookie(
                COOKIE, secure=_is_secure(request), httponly=True, samesite="strict"
            )
            return response

    async def session(self, request: Request) -> Response:
        """Serve GET /auth/session."""
        identity = identity_of(request.scope)
        told = LoggedIn(
            account=str(identity.account),
            name=identity.key_name or identity.name,
            read_only=identity.read_only,
            expires_at=iso_or_none(identity.expires_at),
        )
        return JSONResponse(told.model_dump())

    async def _end(self, request: Request) -> None:
        """End the login that the request came with, if any."""
        secret = request.cookies.get(COOKIE)
        if secret:
            await self._site.access.end_login(digest_of(secret))


def _is_secure(request: Request) -> bool:
    """Whether the cookie may only travel encrypted: always but where it does not leave the machine."""
    if request.url.scheme == "https":
        return True
    return not is_loopback(urlsplit(f"//{request.headers.get('host', '')}").hostname or "")
