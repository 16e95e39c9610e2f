"""The two clocks: wall time for people, the boot's monotonic time for measuring."""

from __future__ import annotations

import time
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
