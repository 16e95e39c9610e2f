"""Noticing commits for everybody who waits: one timer and one look, however many wait."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Self

from .access import limited_to

POLL_SECONDS = 0.02
URGENT_POLL_SECONDS = 0.002

Key = tuple[str, str, bool, str | None]
"""An account, the id of one of its sessions, whether its messages count, too, and the project it is limited to."""
Told = Callable[[Mapping[Key, int] | None], None]
"""Takes revisions, or pulses, by session, without the sessions that are gone; None when they could not be read."""
_Waiter = asyncio.Future[bool]


class Lookout:
    """Who waits on one store object, and the timer by which others' commits are noticed while anybody does.

    A waiter is a future and no task, so nothing is left of one that goes. For one event loop.
    """

    def __init__(
        self, version: Callable[[], int | None], ask: Callable[[Collection[Key], Told], None]
    ) -> None:
        """`version` is another number after a commit of any other connection; None when it cannot be read.

        `ask` has the revisions of these sessions told in the event loop, as they are now or later.
        """
        self._read_version = version
        self._read_revisions = ask
        self._version: int | None = None
        self._changes = 0
        self._waiting: set[_Waiter] = set()
        self._watches: set[SessionWatch] = set()
        self._urgent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._asked: Collection[Key] = ()
        self._ask_again = False
        # Else the timer would keep alive whatever belongs to the request that started it.
        self._context = contextvars.Context()

    def open(self) -> None:
        """What was committed until now is no news."""
        self._version = self._read_version()

    def close(self) -> None:
        """Let everybody go, to find that the store is closed."""
        self._wake()
        for watch in self._watches:
            watch.hear(None)
        self._stop()

    def changes(self) -> int:
        """See `SessionStore.changes`."""
        return self._changes

    def bump(self) -> None:
        """There is news: a commit, or a nudge."""
        self._wake()
        for watch in self._watches:
            if watch.urgent:
                # It would rather look in vain than wait for the question.
                watch.hear(None)
        self._ask()

    async def wait_change(self, seen: int, timeout: float, urgent: bool) -> int:
        """See `SessionStore.wait_change`."""
        if self._changes == seen:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                self.see_to_it()
                await self.hold(waiter, timeout, urgent)
            finally:
                self._waiting.discard(waiter)
                self.leave_it()
        return self._changes

    def watch(self, account: str, session_id: str, messages: bool = False) -> SessionWatch:
        """See `SessionStore.watch`."""
        key = (str(account), session_id, messages, limited_to(account))
        return SessionWatch(self, key, self._watches)

    async def hold(self, waiter: _Waiter, timeout: float, urgent: bool) -> bool:
        """Whether the waiter was woken before its time was up."""
        limit = asyncio.get_running_loop().call_later(timeout, _set, waiter, False)
        self._urgent += urgent
        try:
            if urgent:
                self._look()
            return await waiter
        finally:
            limit.cancel()
            self._urgent -= urgent

    def see_to_it(self) -> None:
        """Look, if nobody did until now, and from now on."""
        if self._timer is None:
            self._look()

    def leave_it(self) -> None:
        """Look no more, if nobody needs it."""
        if not self._waiting and not self._watches:
            self._stop()

    def _look(self) -> None:
        self._stop()
        version = self._read_version()
        if version is None or version != self._version:
            self._version = version
            self.bump()
        pause = URGENT_POLL_SECONDS if self._urgent else POLL_SECONDS
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(pause, self._look, context=self._context)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._changes += 1
        for waiter in self._waiting:
            _set(waiter, True)

    def _ask(self) -> None:
        """Ask for what all who watch want to know; a question that is under way may be too old for the answer."""
        if self._asked:
            self._ask_again = True
            return
        self._asked = {watch.key for watch in self._watches}
        if self._asked:
            self._read_revisions(self._asked, self._hear)

    def _hear(self, found: Mapping[Key, int] | None) -> None:
        asked, self._asked = self._asked, ()
        for watch in self._watches:
            if watch.key in asked:
                watch.hear(found)
        if self._ask_again:
            self._ask_again = False
            self._ask()


class SessionWatch:
    """Somebody's interest in one session. Use it as a context manager; one may wait at a time."""

    def __init__(self, lookout: Lookout, key: Key, watches: set[SessionWatch]) -> None:
        self.key = key
        self._lookout = lookout
        self._watches = watches
        self._newest = 0
        self._unsure = False
        self._known = 0
        self._waiter: _Waiter | None = None
        self.urgent = False
        """Whether it waits urgently now."""

    def __enter__(self) -> Self:
        """From now on nothing is missed."""
        self._lookout.see_to_it()
        self._watches.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget it."""
        self._watches.discard(self)
        self._lookout.leave_it()

    async def passed(self, revision: int, timeout: float, *, urgent: bool = False) -> bool:
        """See `Watch.passed`."""
        self._known = revision
        if not self._has_news():
            self._waiter = asyncio.get_running_loop().create_future()
            self.urgent = urgent
            try:
                await self._lookout.hold(self._waiter, timeout, urgent)
            finally:
                self._waiter, self.urgent = None, False
        news, self._unsure = self._has_news(), False
        return news

    def _has_news(self) -> bool:
        return self._unsure or self._newest > self._known

    def hear(self, found: Mapping[Key, int] | None) -> None:
        """Take what was asked for; a session that is gone, or cannot be read, its watcher must look at himself."""
        if found is None or self.key not in found:
            self._unsure = True
        else:
            self._newest = max(self._newest, found[self.key])
        if self._waiter is not None and self._has_news():
            _set(self._waiter, True)


def _set(waiter: _Waiter, woken: bool) -> None:
    if not waiter.done():
        waiter.set_result(woken)
