"""Telling clients that a resource has changed, whichever process changed it.

While somebody listens, one of those who wait in this process looks at the store; each then looks at what he watches.
Both eras: `subscriptions/listen` is a stream of its own, `resources/subscribe` belongs to the connection.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourcesListChanged,
    ResourceUpdated,
)
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from bilt_mcp.state import BiltError, StoreUnavailable, limited_to
from bilt_mcp.tools import Desk

from .shared_looks import SharedLooks

if TYPE_CHECKING:
    from bilt_mcp.tools import watching

log = logging.getLogger(__name__)

MOST_WATCHED = 100
"""Resources that one stream, or one connection, can watch."""
MOST_STREAMS = 32
"""Streams of one connection."""
ASK_SECONDS = 1.0
"""How often one who listens looks without cause: whether a worker is alive that is needed, or a gate's time is up."""
LONG_SECONDS = 60.0
TROUBLE_SECONDS = 1.0
LISTING = ""
"""In place of an address: the list of resources."""

_WATCHER = "bilt.watcher"
"""Under this name a connection of the era with a handshake keeps its watcher."""


class Audience:
    """Who listens to which session, in this process."""

    def __init__(self) -> None:
        self._listeners: Counter[str] = Counter()
        self.looks = SharedLooks()
        """What they have seen."""

    def count(self, session_id: str) -> int:
        """How many streams and connections are told of changes of a session, its workflows or its logs."""
        return self._listeners[session_id]

    @contextlib.contextmanager
    def joined(self, session_ids: Iterable[str]) -> Generator[None]:
        """Count one more listener for each of these sessions."""
        counted = set(session_ids)
        self._listeners.update(counted)
        try:
            yield
        finally:
            self.leave(counted)

    def join(self, session_id: str) -> None:
        """Count one more listener."""
        self._listeners[session_id] += 1

    def leave(self, session_ids: Iterable[str]) -> None:
        """Count one listener less for each of these sessions."""
        for session_id in session_ids:
            self._listeners[session_id] -= 1
            if self._listeners[session_id] <= 0:
                del self._listeners[session_id]


class Watcher:
    """Looks at resources whenever the store has changed, and says which of them have."""

    def __init__(
        self, desk: Desk, looks: SharedLooks, publish: Callable[[str], Awaitable[None]]
    ) -> None:
        self._desk = desk
        self._looks = looks
        self._publish = publish
        own = None if desk.project is None else desk.project.id
        self._sees = (desk.store, str(desk.account), limited_to(desk.account), own)
        self._watched: dict[str, watching.Watch] = {}
        self._seen: dict[str, object] = {}
        self._added = anyio.Event()

    @property
    def watched(self) -> dict[str, watching.Watch]:
        """What is watched, by address."""
        return self._watched

    async def add(self, uri: str) -> None:
        """Watch one more, as it is now. Raises `MCPError` for what cannot be watched, or not by this account."""
        if uri in self._watched:
            return
        if len(self._watched) >= MOST_WATCHED:
            raise MCPError(INVALID_PARAMS, f"At most {MOST_WATCHED} resources", {"uri": uri})
        from bilt_mcp.tools import watching  # loaded by the first who listens

        if uri == LISTING:
            watch = watching.listing(self._desk)
        else:
            watch = await watching.watch(self._desk, uri)
        self._seen[uri] = (await watch.look()).mark
        self._watched[uri] = watch
        self._added.set()

    def remove(self, uri: str) -> None:
        """Watch it no longer."""
        self._watched.pop(uri, None)
        self._seen.pop(uri, None)

    async def run(self) -> None:
        """Watch, until cancelled. Trouble with the store is logged, and looked over again a second later."""
        while True:
            try:
                if not self._watched:
                    self._added = anyio.Event()
                    await self._added.wait()
                changes = self._desk.store.changes()
                active, ticking = await self._look(changes)
                if active:
                    await self._desk.engine.wake(news=False)
                wait = ASK_SECONDS if active or ticking else LONG_SECONDS
                await self._desk.store.wait_change(changes, wait)
            except (StoreUnavailable, OSError) as error:
                log.warning("live updates: %s", error)
                await anyio.sleep(TROUBLE_SECONDS)

    async def _look(self, changes: int) -> tuple[bool, bool]:
        """Look at each; whether one of them needs a worker, and whether one may change by the clock alone."""
        active = ticking = False
        for uri, watch in list(self._watched.items()):
            try:
                look = await self._looks.look((*self._sees, uri), changes, watch.look)
            except StoreUnavailable:
                raise
            except BiltError:
                # It is gone; whoever reads it again is told so.
                self.remove(uri)
                await self._publish(uri)
                continue
            active = active or look.active
            ticking = ticking or look.ticking
            if uri in self._seen and self._seen[uri] != look.mark:
                self._seen[uri] = look.mark
                await self._publish(uri)
        return active, ticking


class Live:
    """The live updates of one connection."""

    def __init__(
        self,
        desk: Callable[[], Awaitable[Desk]],
        audience: Audience,
        tasks: TaskGroup,
        stopping: anyio.Event,
        most_streams: int | None = None,
    ) -> None:
        """`tasks` ends with the server. `most_streams` of None: as many as one connection may have.

        When `stopping` is set every stream is ended well, so that its client listens elsewhere.
        """
        self._desk = desk
        self._audience = audience
        self._tasks = tasks
        self._stopping = stopping
        self._most_streams = most_streams
        self._streams = 0

    async def listen(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one stream of `subscriptions/listen`; only what this account may read is listened to."""
        most = self._most_streams or MOST_STREAMS
        if self._streams >= most:
            raise MCPError(INTERNAL_ERROR, f"At most {most} subscriptions at a time")
        self._streams += 1
        try:
            return await self._listen(ctx, params)
        finally:
            self._streams -= 1

    async def _listen(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        bus = InMemorySubscriptionBus()

        async def publish(uri: str) -> None:
            await bus.publish(ResourceUpdated(uri) if uri != LISTING else ResourcesListChanged())

        asked = params.notifications
        wanted = list(dict.fromkeys(asked.resource_subscriptions or ()))
        handler = ListenHandler(bus)
        if not wanted and not asked.resources_list_changed:
            return await self._serve(handler, ctx, params)  # our other lists never change
        watcher = Watcher(await self._open(), self._audience.looks, publish)
        if asked.resources_list_changed:
            await watcher.add(LISTING)
        for uri in wanted:
            with contextlib.suppress(MCPError):
                await watcher.add(uri)
        honoured = [uri for uri in watcher.watched if uri != LISTING]
        # What is not honoured is not in the acknowledgement; why, nobody is told.
        subset = asked.model_copy(update={"resource_subscriptions": honoured or None})
        params = params.model_copy(update={"notifications": subset})
        with self._audience.joined(_sessions(watcher)):
            return await self._serve(handler, ctx, params, watcher)

    async def _serve(
        self,
        handler: ListenHandler,
        ctx: ServerRequestContext[Any, Any],
        params: SubscriptionsListenRequestParams,
        watcher: Watcher | None = None,
    ) -> SubscriptionsListenResult:
        failed: Exception | None = None
        result: SubscriptionsListenResult | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._close_in_time, handler)
            if watcher is not None:
                tasks.start_soon(watcher.run)
            try:
                result = await handler(ctx, params)
            except Exception as error:
                failed = error  # as it is, and not in a group
            tasks.cancel_scope.cancel()
        if result is None:
            assert failed is not None
            raise failed
        return result

    async def _close_in_time(self, handler: ListenHandler) -> None:
        await self._stopping.wait()
        handler.close()

    async def subscribe(
        self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams
    ) -> EmptyResult:
        """Serve `resources/subscribe` of the era with a handshake."""
        desk = await self._open()
        connection = _connection_of(ctx)
        known = connection.state.get(_WATCHER)
        if known is None:
            known = Watcher(desk, self._audience.looks, ctx.session.send_resource_updated)
            connection.state[_WATCHER] = known
            # One server may have many connections, of which each ends in its time.
            over = anyio.CancelScope()
            connection.exit_stack.callback(over.cancel)
            self._tasks.start_soon(self._run, known, over)
        before = _sessions(known)
        await known.add(str(params.uri))
        for session_id in _sessions(known) - before:
            self._audience.join(session_id)
        return EmptyResult()

    async def unsubscribe(
        self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        """Serve `resources/unsubscribe`; what was not subscribed to is not, afterwards."""
        known = _connection_of(ctx).state.get(_WATCHER)
        if known is not None:
            before = _sessions(known)
            known.remove(str(params.uri))
            self._audience.leave(before - _sessions(known))
        return EmptyResult()

    async def _run(self, watcher: Watcher, over: anyio.CancelScope) -> None:
        try:
            with over:
                await watcher.run()
        except Exception:
            # Its client must read by himself then; nothing else of the connection may end by it.
            log.exception("live updates failed")
        finally:
            self._audience.leave(_sessions(watcher))

    async def _open(self) -> Desk:
        try:
            return await self._desk()
        except StoreUnavailable as error:
            raise MCPError(INTERNAL_ERROR, f"{error.error}: {error.message}") from error


def _connection_of(ctx: ServerRequestContext[Any, Any]) -> Connection:
    # The SDK's handlers are meant to reach it, but have no public way yet.
    return ctx.session._connection  # pyright: ignore[reportPrivateUsage]


def _sessions(watcher: Watcher) -> set[str]:
    return {watch.session_id for watch in watcher.watched.values() if watch.session_id}
