"""The way to a connection's thread and back: half of what a small write or look costs beside the disk."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

import aiosqlite

from .driver import sqlite3

T = TypeVar("T")


class Hop:
    """Calls functions on the threads of aiosqlite's connections, for one event loop.

    aiosqlite offers single statements, each there and back. And it comes back by `call_soon_threadsafe`, which
    takes twice as long as a pipe of our own and a waiter that goes on at once.
    """

    def __init__(self) -> None:
        self._over: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._ends: tuple[int, int] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Be ready to bring answers to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._ends = os.pipe()
        for end in self._ends:
            os.set_blocking(end, False)
        self._loop.add_reader(self._ends[0], self._arrive)

    def close(self) -> None:
        """What threads bring after this reaches nobody."""
        with self._lock:  # a thread must not write into whatever is opened under this number next
            ends, self._ends = self._ends, None
        if ends is not None and self._loop is not None:
            self._loop.remove_reader(ends[0])
            for end in ends:
                os.close(end)

    async def call(
        self, connection: aiosqlite.Connection, function: Callable[[sqlite3.Connection], T]
    ) -> T:
        """What `function` returns or raises there. A caller who is cancelled does not wait; it runs all the same."""
        answer = self.answer()
        raised: list[BaseException] = []
        results: list[T] = []

        def run(database: sqlite3.Connection) -> None:
            try:
                results.append(function(database))
            except BaseException as error:
                raised.append(error)
            self.back(answer.give)

        self.there(connection, run)
        await answer
        if raised:
            raise raised.pop()
        return results.pop()

    def answer(self) -> Answer:
        """A new one, for this event loop."""
        return Answer(loop=self._loop)  # named, because asking which one runs asks the kernel

    def there(
        self, connection: aiosqlite.Connection, function: Callable[[sqlite3.Connection], None]
    ) -> None:
        """Call it on the connection's thread, after what was asked for before. It must not raise."""
        opened: Any = connection
        opened._tx.put_nowait((None, partial(function, opened._conn)))

    def back(self, *calls: Callable[[], None]) -> None:
        """From a thread: call them in the event loop, in this order."""
        self._over.extend(calls)
        with self._lock:
            if self._ends is not None:
                with contextlib.suppress(BlockingIOError):  # there is enough in it to be noticed
                    os.write(self._ends[1], b"\0")

    def _arrive(self) -> None:
        if self._ends is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._ends[0], 4096)
        try:
            while self._over:
                self._over.popleft()()
        finally:
            if (
                self._over and self._loop is not None
            ):  # a task that ends the program must not keep others waiting
                self._loop.call_soon(self._arrive)


class Answer(asyncio.Future[None]):
    """A future whose one waiter goes on in `give()` itself, not in the event loop's next round."""

    _waiter: tuple[Callable[[Any], object], contextvars.Context] | None = None

    def add_done_callback(
        self,
        fn: Callable[[Self], object],
        /,
        *,
        context: contextvars.Context | None = None,
    ) -> None:
        """As every future; and `give` calls the last one itself."""
        self._waiter = (fn, context or contextvars.copy_context())
        super().add_done_callback(fn, context=context)

    def give(self) -> None:
        """Let the waiter go on, if he was not cancelled. Call it from the event loop, outside of tasks."""
        if self.done():
            return
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self.set_result(None)
            return
        fn, context = waiter
        self.remove_done_callback(fn)
        self.set_result(None)
        context.run(fn, self)
