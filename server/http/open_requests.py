"""The requests that are being answered: those that must not outlive their credential, or the server.

One look a second per credential serves all its requests, and only those that have been open for so long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import anyio
from anyio.abc import TaskGroup

from bilt_mcp.state import StoreUnavailable

log = logging.getLogger("bilt_mcp.server")

LOOK_SECONDS = 1.0
STOP_SECONDS = 8.0
"""How long requests that change something may take when the server was told to stop."""

Ending = Literal["revoked", "stopping"]


class OpenRequest:
    """One of them. `ended` says why it was cut short."""

    __slots__ = ("began", "ended", "group", "is_listening", "scope", "still_good")

    def __init__(
        self,
        group: str,
        still_good: Callable[[], Awaitable[bool]] | None,
        scope: anyio.CancelScope,
    ) -> None:
        """Requests of one `group` have the same `still_good`."""
        self.group = group
        self.still_good = still_good
        self.scope = scope
        self.is_listening = False
        """Whether it only tells of news, so that nothing is lost when it ends."""
        self.began = time.monotonic()
        self.ended: Ending | None = None

    def end(self, why: Ending) -> None:
        """Cut it short."""
        if self.ended is None:
            self.ended = why
            self.scope.cancel()


class OpenRequests:
    """All of one server."""

    def __init__(self, tasks: Callable[[], TaskGroup], stopping: anyio.Event) -> None:
        """`tasks` ends with the server."""
        self._tasks = tasks
        self._stopping = stopping
        self._open: set[OpenRequest] = set()
        self._is_watching = False
        self._is_waiting = False
        self._is_empty = anyio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, request: OpenRequest) -> None:
        """From now on it may be ended."""
        self._open.add(request)
        if not self._is_watching and request.still_good is not None:
            self._is_watching = True
            self._tasks().start_soon(self._watch)
        if not self._is_waiting:
            self._is_waiting = True
            self._tasks().start_soon(self._wait)

    def remove(self, request: OpenRequest) -> None:
        """It is answered."""
        self._open.discard(request)
        if not self._open:
            self._is_empty.set()

    async def all_answered(self, seconds: float = STOP_SECONDS) -> None:
        """Return when none is open; cut short what is open after so many seconds."""
        with anyio.move_on_after(seconds):
            while self._open:
                self._is_empty = anyio.Event()
                await self._is_empty.wait()
        for request in list(self._open):
            request.end("stopping")

    async def _wait(self) -> None:
        await self._stopping.wait()
        for request in list(self._open):
            if request.is_listening:
                request.end("stopping")

    async def _watch(self) -> None:
        # Sleeps first: most requests are over before this begins, and each would start it again.
        while True:
            await anyio.sleep(LOOK_SECONDS)
            if not self._open:
                break
            await self._look(time.monotonic() - LOOK_SECONDS / 2)
        self._is_watching = False

    async def _look(self, before: float) -> None:
        groups: dict[str, list[OpenRequest]] = {}
        for request in self._open:
            if request.began < before:
                groups.setdefault(request.group, []).append(request)
        for requests in groups.values():
            still_good = requests[0].still_good
            try:
                good = still_good is None or await still_good()
            except StoreUnavailable as error:
                log.warning("cannot see whether a credential is still good: %s", error)
                continue
            if not good:
                for request in requests:
                    request.end("revoked")
