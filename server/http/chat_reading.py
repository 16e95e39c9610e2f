"""Reading what happens in a thread for all who follow it: who is equally far as another one gets the same bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bilt_mcp.state import Over, Place, Timeline, limited_to
from bilt_mcp.tools import Desk

from .chat_answers import report_of
from .chat_events import events_of

AT_ONCE = 100
"""Messages that are read, and sent, at once: what a slow reader makes us keep."""
BEGINNING = Place(0)


@dataclass(frozen=True)
class Piece:
    """What comes next in a stream."""

    known: Timeline
    data: bytes
    """The events as text; empty when there is nothing new."""
    after: Place | None
    """The place behind which to read on."""
    is_last: bool
    """Whether the workflow is over with it."""


class Reader:
    """Reads for all streams of one server; nothing is kept but what is being read just now."""

    def __init__(self) -> None:
        self._under_way: dict[object, asyncio.Task[Piece | None]] = {}

    async def read(self, desk: Desk, session_id: str, after: Place | None) -> Piece | None:
        """What stands behind `after`; None where that is no place of the session. Raises as `SessionStore.timeline`.

        It may be a moment old; `known.pulse` says of which.
        """
        key = (desk.account, limited_to(desk.account), session_id, after)
        reading = self._under_way.get(key)
        if reading is None:
            look = _read(desk, session_id, after)
            reading = self._under_way[key] = asyncio.ensure_future(look)
            reading.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(reading)  # who goes leaves it to the others

    def _done(self, key: object, reading: asyncio.Task[Piece | None]) -> None:
        del self._under_way[key]
        if not reading.cancelled():
            reading.exception()  # whoever waits is told; if nobody does, nobody needs to be


async def _read(desk: Desk, session_id: str, after: Place | None) -> Piece | None:
    known = await desk.store.timeline(desk.account, session_id, after, AT_ONCE)
    if known is None:
        return None
    told: list[bytes] = []
    is_last = False
    for happening in known.happenings:
        report = None
        if isinstance(happening.what, Over):
            is_last = True
            over = happening.what.workflow.id
            report = report_of(await desk.store.invocation(desk.account, over))
        for place, event in events_of(session_id, happening, after or BEGINNING, report):
            told.append(event.encoded())
            after = place
    return Piece(known, b"".join(told), after, is_last)
