"""Holding an answer only for as long as somebody waits for it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import anyio
from starlette.requests import Request

from .site import Site


async def unless_gone(request: Request, site: Site, waiting: Awaitable[Any]) -> None:
    """Return when `waiting` is over, or its caller has gone, or the server was told to stop.

    The request's body must have been read. Raises what `waiting` raises.
    """
    raised: list[Exception] = []

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async def stopping() -> None:
        await site.stopping.wait()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(gone)
        group.start_soon(stopping)
        try:
            await waiting
        except Exception as error:  # or it would come out as a group
            raised.append(error)
        group.cancel_scope.cancel()
    if raised:
        raise raised[0]
