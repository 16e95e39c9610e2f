"""The command `bilt-mcp serve`: options become settings; check, listen, say so, and end as one was told to."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio

from bilt_mcp.server.config import Config, ConfigError
from bilt_mcp.server.tracing import traced
from bilt_mcp.state import StoreUnavailable

from .listening import listening
from .settings import HttpSettings
from .startup_checks import check


def serve(given: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit code: 2 where something must be corrected first."""
    gc.freeze()
    gc.enable()
    try:
        config = Config.from_environ(project=given.project, store=given.store)
        anyio.run(serve_http, config, _settings(given))
    except (ConfigError, StoreUnavailable) as error:
        print(f"bilt-mcp: {error}", file=sys.stderr)
        return 2
    return 0


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


def _settings(given: argparse.Namespace) -> HttpSettings:
    options: dict[str, Any] = {
        "host": given.host,
        "port": given.port,
        "no_auth": given.no_auth,
        "public_urls": given.public_url and tuple(given.public_url),
        "origins": given.allow_origin and tuple(given.allow_origin),
        "trusted_proxies": given.trusted_proxy and tuple(given.trusted_proxy),
        "tls_cert": given.tls_cert and Path(given.tls_cert),
        "tls_key": given.tls_key and Path(given.tls_key),
        "key_rate": given.rate,
        "login_rate": given.chat_rate,
        "oauth_issuer": given.oauth_issuer and given.oauth_issuer.rstrip("/"),
        "oauth_audience": given.oauth_audience,
    }
    return HttpSettings(**{name: value for name, value in options.items() if value is not None})
