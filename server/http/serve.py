"""The command `bilt-mcp serve`: check, listen, say so, and end as one was told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from bilt_mcp.server.config import Config
from bilt_mcp.server.tracing import traced

from .checks import check
from .listening import listening
from .settings import HttpSettings


async def serve_http(config: Config, settings: HttpSettings) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once. Workflows go on without it.

    Raises `ConfigError` and `StoreUnavailable` before it says that it is ready.
    """
    await check(config, settings)
    told = asyncio.Event()

    def obey(number: int) -> None:
        if told.is_set():
            os._exit(128 + number)
        told.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, obey, number)
    async with traced(config.environ), listening(config, settings) as server:
        print(f"bilt-mcp is ready on {server.url}", file=sys.stderr, flush=True)
        await told.wait()
        print("bilt-mcp is stopping", file=sys.stderr, flush=True)
