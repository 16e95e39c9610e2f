"""Holding an answer only for as long as somebody waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from starlette.types import Receive

Wait = Callable[[], Awaitable[object]]


async def first_of(*waits: Wait) -> None:
    """Return when one of them does; the others are cancelled. Raises what it raises."""
    raised: list[Exception] = []

    async def run(wait: Wait) -> None:
        try:
            await wait()
        except Exception as error:
            raised.append(error)  # as it is, and not in a group
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for wait in waits:
            tasks.start_soon(run, wait)
    if raised:
        raise raised[0]


async def until_gone(receive: Receive) -> None:
    """Return when the caller has gone. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
