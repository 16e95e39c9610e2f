"""Looking at a resource once for all who want to know of it at the same moment: a team may listen to one session."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from bilt_mcp.tools import watching

FRESH_SECONDS = 0.1
"""How old a look may be that is shared, when the store has not changed since: some things change by the clock."""
MOST_KEPT = 1000


class SharedLooks:
    """The looks of one process."""

    def __init__(self) -> None:
        self._shared: dict[Hashable, _Shared] = {}

    async def look(
        self, what: Hashable, changes: int, look: Callable[[], Awaitable[watching.Look]]
    ) -> watching.Look:
        """What `look` finds, or what it has just found for somebody else. Raises what it raises.

        `what` tells what is looked at, and for whom; `changes` is the store's count before.
        """
        while True:
            shared = self._shared.get(what)
            if shared is None or not shared.serves(changes):
                return await self._first(what, changes, look)
            await shared.over.wait()
            if shared.error is not None:
                raise shared.error
            if shared.found is not None:
                return shared.found
            # Whoever looked has gone before he saw anything.

    async def _first(
        self, what: Hashable, changes: int, look: Callable[[], Awaitable[watching.Look]]
    ) -> watching.Look:
        if len(self._shared) >= MOST_KEPT:
            self._shared.clear()
        mine = self._shared[what] = _Shared(changes)
        try:
            found = mine.found = await look()
        except Exception as error:
            mine.error = error
            raise
        finally:
            if mine.found is None and self._shared.get(what) is mine:
                del self._shared[what]
            mine.over.set()
        return found


class _Shared:
    """A look, and those who wait for it."""

    def __init__(self, changes: int) -> None:
        self._changes = changes
        self._began = time.monotonic()
        self.over = anyio.Event()
        self.found: watching.Look | None = None
        self.error: Exception | None = None

    def serves(self, changes: int) -> bool:
        """Whether it sees all that somebody must see who begins to look now."""
        return self._changes == changes and time.monotonic() < self._began + FRESH_SECONDS
