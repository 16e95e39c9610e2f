"""Talking to a store that may be full or locked for a while."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from bilt_mcp.state import StoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = 1.0


async def insist(call: Callable[[], Awaitable[T]], unless: Callable[[], bool] | None = None) -> T:
    """Call until the store answers. When it does not and `unless` says so, raises `StoreUnavailable`."""
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            log.warning("%s", error)
            if unless is not None and unless():
                raise
            await anyio.sleep(RETRY_SECONDS)


async def attempt(call: Callable[[], Awaitable[object]]) -> None:
    """Call once; when it fails only something to look at is lost."""
    try:
        await call()
    except StoreUnavailable as error:
        log.warning("%s", error)
