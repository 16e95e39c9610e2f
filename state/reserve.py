"""A file that is in the way when the disk is full, so that there is room for what must be recorded all the same."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

RESERVE_BYTES = 1_048_576
"""A cancel and its receipt take some 40 KiB of it, and a checkpoint as much again."""
ROOMY_BYTES = 64 * RESERVE_BYTES
"""The reserve is only taken where this much stays free."""


def keep_reserve(path: Path) -> None:
    """See to it that the reserve is there, where the disk is not nearly full already."""
    with contextlib.suppress(OSError):
        if path.exists() and path.stat().st_size >= RESERVE_BYTES:
            return
        if shutil.disk_usage(path.parent).free < ROOMY_BYTES:
            return
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
            # Written and not only reserved: not every file system can reserve.
            file.write(bytes(RESERVE_BYTES))


def is_full(folder: Path) -> bool:
    """Whether hardly anything can be written there."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < RESERVE_BYTES
    return False


def give_up_reserve(path: Path) -> bool:
    """Make room; whether there was any to make."""
    try:
        path.unlink()
    except OSError:
        return False
    return True
