"""GET /chat/stream: what happens in a thread, live, for who may leave and come back (CONTRACT section 4).

Nothing is kept for a stream: each reads what stands in the store behind the last event that it has sent, so a restart
of the server is no more than a reconnection. However many follow a thread, one reads for all who are equally far.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from bilt_mcp.state import (
    BiltError,
    InvalidArguments,
    Place,
    Problem,
    StoreUnavailable,
    Timeline,
    Watch,
    iso_now,
)
from bilt_mcp.tools import Desk, expires_in, needs_worker

from .chat_events import KEEP_ALIVE, RETRY, ChatEvent, place_of
from .chat_reading import Reader
from .chat_requests import thread_id_of, told_as
from .errors import Refused
from .holding import first_of, until_gone
from .identity import identity_of
from .site import Site

log = logging.getLogger("bilt_mcp.server")

KEEP_ALIVE_SECONDS = 15.0
LOOK_AGAIN_SECONDS = 2.0
"""How often a stream sees to it that a worker is alive."""
MOST_STREAMS = 256
"""Streams of one login."""
TROUBLE_SECONDS = 1.0
_HEADERS = {
    "cache-control": "no-store",
    "content-type": "text/event-stream; charset=utf-8",
    "x-accel-buffering": "no",
}


def routes(site: Site) -> list[BaseRoute]:
    """The chat's stream."""
    reader, open_streams = Reader(), Counter[str]()

    async def stream(request: Request) -> Response:
        with told_as("stream_error", "Failed to stream"):
            thread, after, from_now = _asked(request)
            identity = identity_of(request.scope)
            if open_streams[identity.credential] >= MOST_STREAMS:
                told = f"At most {MOST_STREAMS} streams of a login. Leave one."
                raise Refused(429, "too_many_streams", told, headers={"Retry-After": "5"})
            desk = await site.desk(identity)
            session_id = thread_id_of(thread)
            known = await desk.store.timeline(desk.account, session_id, after)
            if known is None:
                raise InvalidArguments([Problem("last_event_id", "is of no event of this thread")])
            over = known.workflow is not None and known.workflow.final and not known.happenings
            if after is not None and over:
                return Response(status_code=204)  # tells a browser not to come back
            if from_now:
                after = await _now(desk, session_id)
            if request.method == "HEAD":
                return Response(headers=_HEADERS)
            counted = _counted(open_streams, identity.credential)
            return _Stream(site, reader, desk, session_id, after, counted)

    return [Route("/chat/stream", stream, methods=["GET"])]


@contextmanager
def _counted(counter: Counter[str], key: str) -> Generator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


def _asked(request: Request) -> tuple[str, Place | None, bool]:
    """The thread, the place behind which to begin, and whether to begin with what comes now."""
    query = request.query_params
    thread = query.get("thread_id")
    if not thread:
        raise InvalidArguments([Problem("thread_id", "is required")])
    begin = query.get("from", "start")
    if begin not in ("start", "now"):
        raise InvalidArguments([Problem("from", "must be start or now")])
    # The header is a browser's that comes back; the address is that of its first visit.
    last = request.headers.get("last-event-id") or query.get("last_event_id")
    after = None if not last else place_of(last)
    if last and after is None:
        raise InvalidArguments([Problem("last_event_id", "is the id of no event")])
    return thread, after, begin == "now" and after is None


async def _now(desk: Desk, session_id: str) -> Place | None:
    """The place of the newest thing that has happened."""
    after: Place | None = None
    while True:
        known = await desk.store.timeline(desk.account, session_id, after)
        if known is None or not known.happenings:
            return after
        after = known.happenings[-1].place


class _Stream(Response):
    """One stream, as the answer to one request."""

    def __init__(
        self,
        site: Site,
        reader: Reader,
        desk: Desk,
        session_id: str,
        after: Place | None,
        counted: AbstractContextManager[None],
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._site = site
        self._reader = reader
        self._desk = desk
        self._session_id = session_id
        self._after = after
        self._counted = counted
        self._sent_at = 0.0
        self._troubled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the workflow is over, the server stops, or the caller goes."""
        is_gone = False

        async def gone() -> None:
            nonlocal is_gone
            await until_gone(receive)
            is_gone = True

        async def run() -> None:
            with self._counted, self._site.stores.audience.joined([self._session_id]):
                await self._run(send)

        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        await self._send(send, RETRY)
        await first_of(run, gone, self._site.stopping.wait)
        if not is_gone:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _run(self, send: Send) -> None:
        store = self._desk.store
        with store.watch(self._desk.account, self._session_id, messages=True) as watch:
            while True:
                try:
                    piece = await self._reader.read(self._desk, self._session_id, self._after)
                except StoreUnavailable as error:
                    await self._tell_trouble(send, "The store cannot be used now.", error)
                    await anyio.sleep(TROUBLE_SECONDS)
                    continue
                except BiltError as error:
                    await self._tell_trouble(send, "This thread is gone.", error)
                    return
                self._troubled = False
                if piece is None:
                    return
                if piece.data:
                    await self._send(send, piece.data)
                self._after = piece.after
                if piece.is_last:
                    return
                if not piece.known.has_more:
                    await self._until_news(send, watch, piece.known)

    async def _until_news(self, send: Send, watch: Watch, known: Timeline) -> None:
        """Return when there may be more; a stream where nothing happens reads nothing."""
        look_at = time.monotonic() + expires_in(known.session)
        while True:
            beat_at = self._sent_at + KEEP_ALIVE_SECONDS
            pauses = [look_at, beat_at]
            if needs_worker(known.session):
                await self._desk.engine.wake(news=False)
                pauses.append(time.monotonic() + LOOK_AGAIN_SECONDS)
            if await watch.passed(known.pulse, max(0.0, min(pauses) - time.monotonic())):
                return
            now = time.monotonic()
            if now >= look_at:
                return
            if now >= beat_at:
                await self._send(send, KEEP_ALIVE)

    async def _tell_trouble(self, send: Send, told: str, error: BiltError) -> None:
        """Say once that there is trouble. It has no id: who comes back asks for what he has not seen."""
        if self._troubled:
            return
        self._troubled = True
        error_id = str(uuid4())
        log.error("chat stream: %s, error_id %s", error, error_id)
        data = {
            "thread_id": self._session_id,
            "code": "stream_error",
            "message": told,
            "error_id": error_id,
        }
        await self._send(send, ChatEvent("error", data, iso_now(), None).encoded())

    async def _send(self, send: Send, data: bytes) -> None:
        self._sent_at = time.monotonic()
        await send({"type": "http.response.body", "body": data, "more_body": True})
