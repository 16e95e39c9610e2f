"""Writers of a SQLite store who wait together, so that they share a commit for certain."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from bilt_mcp.state import SqliteStore, StoreLocation

from .waiting import wait_until

Call = Coroutine[Any, Any, Any]


def waiting(store: SqliteStore) -> int:
    return len(store._writes._waiting)  # pyright: ignore[reportPrivateUsage]


@asynccontextmanager
async def held_back(
    store: SqliteStore, location: StoreLocation, *calls: Call
) -> AsyncGenerator[list[asyncio.Task[Any]]]:
    """The calls, begun in their order; they wait together for the turn, which comes at the end of the block."""
    held = os.open(location.turn, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        tasks = [asyncio.create_task(call) for call in calls]
        await wait_until(lambda: waiting(store) == len(calls), "all wait")
        yield tasks
    finally:
        os.close(held)


async def together(store: SqliteStore, location: StoreLocation, *calls: Call) -> list[Any]:
    """What the calls return or raise that wait for one turn."""
    async with held_back(store, location, *calls) as tasks:
        pass
    return await asyncio.gather(*tasks, return_exceptions=True)
