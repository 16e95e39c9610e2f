"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio


async def wait_until(
    predicate: Callable[[], bool], description: str, *, timeout: float = 30.0
) -> None:
    """Return as soon as `predicate()` is true; an AssertionError names what did not come about."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain until {description}")
        await anyio.sleep(0.005)
