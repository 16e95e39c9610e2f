"""The worker's heartbeat: it shows that the worker lives, and ends it when its store is gone."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import anyio

from bilt_mcp.state import StoreLocation

log = logging.getLogger("bilt_mcp.worker")

BEAT_SECONDS = 1.0
GONE_BEATS = 3
"""For so many the database must have been away: a file that is put back at once costs nobody a build."""


async def beat(location: StoreLocation, busy: Callable[[], bool]) -> None:
    """Show life each second while the worker is `busy`. Ends the process when its database is gone, or another's."""
    ours, away = _file_at(location.database), 0
    while True:
        if busy():
            show_life(location)
        away = 0 if _file_at(location.database) == ours else away + 1
        if away >= GONE_BEATS:
            log.error("the store is gone, and nobody could cancel what runs: leaving at once")
            # Nothing can be recorded any more. The keepers kill what they run when their worker has gone.
            os._exit(1)
        await anyio.sleep(BEAT_SECONDS)


def show_life(location: StoreLocation) -> None:
    """Beat once. When it did is the file's time."""
    with contextlib.suppress(OSError):
        location.heartbeat.touch(0o600)


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is there now; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
