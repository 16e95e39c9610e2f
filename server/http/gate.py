"""The one gate before every route (CONTRACT sections 3 and 4).

In this order: size as announced, Host, Origin, content type, credential, rate, reading or writing, size as it comes.
Every answer, also a refusal, leaves with the same security headers. It is plain ASGI, because every request passes it.
"""

from __future__ import annotations

import logging
import time
from os import urandom
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bilt_mcp.state import BiltError, StoreUnavailable

from .body import SILENCE_SECONDS, again, linger, read_body, refuse_crowd, too_large
from .doorman import Entry, limit_headers, too_many
from .errors import Refused, crashed, refused, response
from .head import Head, address_of
from .identity import set_identity, set_window
from .open_requests import Ending, OpenRequest
from .site import Site
from .surfaces import Way, way_of
from .whereabouts import Whereabouts

log = logging.getLogger("bilt_mcp.server")

SMALL_BODY = 65_536
"""What is left unread of a refused request of this size at most does not cost its connection.

And as much is read of whoever shows no credential, because until it is read it lies in our memory: a login has less.
"""

_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
_NO_STORE = (b"cache-control", b"no-store")
_CLOSE = (b"connection", b"close")
_SAME_PAGE = (None, b"same-origin", b"none")


class Gate:
    """Wraps the application; nobody reaches a route but through it."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site
        self._whereabouts = Whereabouts(site.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _Passage(self._app, self._site, self._whereabouts, scope, receive, send).run()
        else:
            await send({"type": "websocket.close", "code": 1008})


class _Passage:
    """One request on its way through."""

    __slots__ = (
        *(
            "_app",
            "_began",
            "_body_read",
            "_extra",
            "_is_complete",
            "_is_stream",
            "_most",
            "_receive",
        ),
        *("_request", "_request_id", "_scope", "_send", "_site", "_status", "_way", "_whereabouts"),
    )

    def __init__(
        self,
        app: ASGIApp,
        site: Site,
        whereabouts: Whereabouts,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._app = app
        self._site = site
        self._whereabouts = whereabouts
        self._scope = scope
        self._receive = receive
        self._send = send
        self._way: Way = way_of(scope["path"])
        most = site.settings.most_body_bytes
        self._most = most if self._way.credential in ("bearer", "cookie") else min(most, SMALL_BODY)
        self._request_id = urandom(16).hex()
        self._extra = [*_SECURITY, (b"x-request-id", self._request_id.encode())]
        self._body_read = False
        self._request: OpenRequest | None = None
        self._status = 0
        self._is_stream = False
        self._is_complete = False
        self._began = time.perf_counter()

    async def run(self) -> None:
        """Answer it, whatever happens."""
        head: Head | None = None
        try:
            head = Head(self._scope)
            preflight = self._check(head)
            if preflight is not None:
                await self._answer_preflight(preflight)
                return
            entry = await self._site.doorman.enter(self._way, head, address_of(self._scope))
            self._admit(entry)
            if head.body_bytes != 0:
                body = await self._read_body(entry)
                self._body_read = True
                refuse_crowd(body)
                self._receive = again(body, self._receive)
            self._body_read = True
        except Refused as error:
            self._site.traffic.refused[self._way.surface, error.code] += 1
            await self._refuse(error, head)
        except ClientDisconnect:
            return
        except StoreUnavailable as error:
            await self._refuse(self._told(error), head)
        except Exception as error:
            await self._refuse(crashed(error), head)
        else:
            await self._pass_on(entry)
        finally:
            self._count()

    # -- before the credential -------------------------------------------------------------------

    def _check(self, head: Head) -> bytes | None:
        """Whether it may come at all; the origin where a browser only asks before it does."""
        announced = head.body_bytes
        if announced is not None and announced > self._most:
            raise too_large(self._most)
        if not self._whereabouts.is_ours(head.get(b"host")):
            hint = "A server behind another name is told of it with --public-url."
            raise Refused(421, "foreign_host", "No server of this name is here.", hint=hint)
        origin = head.get(b"origin")
        if origin is not None:
            if not self._whereabouts.may_call(origin):
                hint = "Pages of other origins are let in with --allow-origin."
                told = "Pages of this origin may not call this server."
                raise Refused(403, "foreign_origin", told, hint=hint)
            cookies = self._way.surface == "chat"
            self._extra += self._whereabouts.shared(origin, cookies=cookies)
        elif (
            self._way.surface == "chat"
            and head.get(b"sec-fetch-site") not in _SAME_PAGE
            and self._scope["method"] != "OPTIONS"
        ):
            told = "Pages of other sites may not call this server."
            raise Refused(403, "foreign_origin", told)
        if self._site.stopping.is_set() and not self._scope["path"].startswith("/health"):
            raise _stopping()
        method = self._scope["method"]
        if method == "OPTIONS" and origin is not None:
            return origin
        if method not in ("GET", "HEAD"):
            _check_content_type(head, announced)
        return None

    async def _answer_preflight(self, origin: bytes) -> None:
        wanted = None
        for name, value in self._scope["headers"]:
            if name == b"access-control-request-headers":
                wanted = value
        self._body_read = True
        headers = self._whereabouts.preflight(wanted)
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    # -- with the credential ---------------------------------------------------------------------

    def _admit(self, entry: Entry) -> None:
        method = self._scope["method"]
        window = entry.window
        if window is not None:
            self._extra += limit_headers(window)
            if window.exceeded:
                if self._way.surface != "mcp" or method != "POST":
                    raise too_many(window, "Rate limit exceeded.")
                set_window(self._scope, window)
        if self._way.writes and method not in ("GET", "HEAD") and entry.identity.read_only:
            told = "This key can only read. Ask for a key that may change something."
            raise Refused(403, "read_only_key", told)
        set_identity(self._scope, entry.identity)

    async def _read_body(self, entry: Entry) -> bytes:
        cancel = anyio.CancelScope()
        request = OpenRequest(entry.group, entry.still_good, cancel)
        request.is_listening = True  # nothing was begun, so nothing is lost when it ends
        with cancel:
            self._site.requests.add(request)
            try:
                seconds = self._site.settings.body_seconds
                return await read_body(self._receive, self._most, seconds)
            finally:
                self._site.requests.remove(request)
        raise _stopping() if request.ended == "stopping" else self._ended(request.ended)

    async def _pass_on(self, entry: Entry) -> None:
        cancel = anyio.CancelScope()
        request = OpenRequest(
            entry.group,
            entry.still_good,
            cancel,
        )
        self._request = request
        with cancel:
            self._site.requests.add(request)
            try:
                await self._run_app()
            finally:
                self._site.requests.remove(request)
        if request.ended is not None and not self._is_complete:
            await self._cut_short(request.ended)

    async def _run_app(self) -> None:
        self._scope["app"] = self._app  # so that routers raise what they do not know
        try:
            await self._app(self._scope, self._receive, self.send)
        except ClientDisconnect:
            return
        except Refused as error:
            await self._fail(error)
        except StoreUnavailable as error:
            await self._fail(self._told(error))
        except BiltError as error:
            await self._fail(refused(error))
        except HTTPException as error:
            await self._fail(_of_http(error, self._way))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            await self._fail(crashed(error))

    def _ended(self, why: Ending | None) -> Refused:
        if why == "revoked":
            told = "The key was revoked while this was being answered."
            return self._site.doorman.unauthorized(self._way, told, "invalid_token")
        told = "The server is stopping. What was asked for may have been done; ask again."
        return Refused(503, "stopping", told, headers={"Retry-After": "1"})

    async def _cut_short(self, why: Ending) -> None:
        if self._status == 0:
            await self._refuse(self._ended(why), None)
        else:
            with anyio.move_on_after(SILENCE_SECONDS):  # who does not read does not see the end
                await self.send({"type": "http.response.body", "body": b""})

    # -- answers ---------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """What the application sends, with our headers."""
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *self._extra]
            names = {name for name, _ in headers}
            if b"cache-control" not in names:
                headers.append(_NO_STORE)
            self._status = message["status"]
            self._is_stream = self._status == 200 and b"content-length" not in names
            if self._is_stream:
                self._begin_stream()
            message = {
                "type": "http.response.start",
                "status": self._status,
                "headers": headers,
            }
        elif not message.get("more_body", False):
            self._is_complete = True
        await self._send(message)

    def _begin_stream(self) -> None:
        self._site.traffic.streams += 1
        if self._scope["method"] == "GET" and self._request is not None:
            self._request.is_listening = True
            if self._site.stopping.is_set():
                self._request.end("stopping")

    async def _fail(self, error: Refused) -> None:
        """A failure below the gate: an answer, or, when one has begun, its end without a proper one."""
        if self._status == 0:
            await self._refuse(error, None)

    def _told(self, error: StoreUnavailable) -> Refused:
        log.error("a request could not use the store, request_id %s: %s", self._request_id, error)
        return refused(error)

    async def _refuse(self, error: Refused, head: Head | None) -> None:
        unread = not self._body_read and self._is_large(head)
        if unread:
            self._extra.append(_CLOSE)
        answer = response(error, self._way.surface, self._request_id)
        await self.send(
            {
                "type": "http.response.start",
                "status": answer.status_code,
                "headers": answer.raw_headers,
            }
        )
        if unread:
            body: dict[str, Any] = {"type": "http.response.body", "body": answer.body}
            await self.send({**body, "more_body": True})
            await linger(self._receive)
            await self.send({"type": "http.response.body", "body": b""})
        else:
            await self.send({"type": "http.response.body", "body": answer.body})

    def _is_large(self, head: Head | None) -> bool:
        try:
            announced = None if head is None else head.body_bytes
        except Refused:
            return True
        return announced is None or announced > SMALL_BODY

    def _count(self) -> None:
        if self._status:
            route = getattr(self._scope.get("route"), "path", "")
            seconds = None if self._is_stream else time.perf_counter() - self._began
            if self._is_stream:
                self._site.traffic.streams -= 1
            self._site.traffic.count(
                self._way.surface, route, self._scope["method"], self._status, seconds
            )


def _stopping() -> Refused:
    told = "The server is stopping. Try again in a moment."
    return Refused(503, "stopping", told, headers={"Retry-After": "1", "Connection": "close"})


def _check_content_type(head: Head, announced: int | None) -> None:
    given = head.get(b"content-type")
    if given is None:
        if announced == 0:
            return
    elif given.split(b";", 1)[0].strip().lower() == b"application/json":
        return
    told = "The body must be JSON: send it with Content-Type: application/json."
    raise Refused(415, "unsupported_media_type", told)


def _of_http(error: HTTPException, way: Way) -> Refused:
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "invalid_request")
    is_beside = way.surface == "mcp" and error.status_code == 404
    hint = "The path of MCP is /mcp, without a slash behind it." if is_beside else None
    return Refused(error.status_code, code, error.detail, hint=hint, headers=error.headers)
