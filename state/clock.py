"""The two clocks: wall time for people, and how it is written; the boot's monotonic time for measuring."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What a store asks of time; tests give it one that jumps."""

    def now(self) -> int:
        """Wall time, milliseconds since 1970."""
        ...

    def monotonic(self) -> int:
        """Milliseconds on a clock that never jumps and that all processes of one boot share."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        """Wall time, milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> int:
        """CLOCK_MONOTONIC in milliseconds."""
        return time.monotonic_ns() // 1_000_000


@cache
def boot_id() -> str:
    """Names this boot of this machine; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def iso(milliseconds: int) -> str:
    """Milliseconds since 1970 as ISO 8601 UTC with milliseconds and `Z` (CONTRACT section 2)."""
    # Not strftime: that takes 20 times as long, and answers are full of times.
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat()
    return f"{moment[:19]}.{milliseconds % 1000:03d}Z"


def iso_or_none(milliseconds: int | None) -> str | None:
    """As `iso`, for what may not have happened yet."""
    return None if milliseconds is None else iso(milliseconds)


def iso_now() -> str:
    """As `iso`, of this moment."""
    return iso(time.time_ns() // 1_000_000)
