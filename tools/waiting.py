"""Holding an answer until the store says something new. A waiter owns nothing: when it goes, nothing changes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from bilt_mcp.state import Session

from .desk import Desk

LOOK_AGAIN_SECONDS = 1.0
"""How often a waiter makes sure that a worker is alive, when nothing changes."""


async def wait_until(
    desk: Desk,
    session_id: str,
    reached: Callable[[Session], bool],
    seconds: float,
    *,
    urgent: bool = False,
    beat: Callable[[Session], Awaitable[None]] | None = None,
) -> Session:
    """The session as soon as `reached` says so, or as it is after `seconds`.

    While a workflow needs a worker, sees to it that one is alive. `beat` is called about every
    `LOOK_AGAIN_SECONDS` while it waits.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = desk.store.changes()
        session = await desk.store.session(desk.account, session_id)
        left = deadline - time.monotonic()
        if reached(session) or left <= 0:
            return session
        if needs_worker(session):
            await desk.engine.wake()
        if beat is not None:
            await beat(session)
        # Another session's changes wake this one too; only a look at the own session tells.
        revision = session.revision
        until = min(deadline, time.monotonic() + LOOK_AGAIN_SECONDS)
        while (left := until - time.monotonic()) > 0:
            seen = await desk.store.wait_change(seen, left, urgent=urgent)
            if (await desk.store.session(desk.account, session_id)).revision != revision:
                break


def needs_worker(session: Session) -> bool:
    """Whether the session's workflow cannot get on without a worker."""
    return session.status in ("pending", "running", "cancelling")
