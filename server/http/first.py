"""Waiting for whichever comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of them does; the others are cancelled. Raises what it raises."""
    raised: list[Exception] = []

    async def run(wait: Callable[[], Awaitable[object]]) -> None:
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
