"""The HTTP server itself: sockets, uvicorn, and an end that lets requests be answered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import anyio
import uvicorn

from bilt_mcp.server.config import Config, ConfigError

from .app import create_http_app
from .connection import Connection
from .settings import HttpSettings
from .site import Site
from .whereabouts import own_url

BACKLOG = 2048
"""Connections that wait in the kernel."""
ACCEPTED_AT_ONCE = 32
"""So many are accepted before one is looked at, and perhaps turned away. A crowd must not take all descriptors by then:
asyncio cannot accept without one, and says so a thousand times a second.
"""
LAST_SECONDS = 1
"""How long connections may take to close when all is answered."""


@dataclass(frozen=True)
class Listening:
    """A server that takes requests."""

    url: str
    """Such as `http://127.0.0.1:8765`."""
    site: Site


class _Uvicorn(uvicorn.Server):
    """Signals are ours: what they mean here is more than uvicorn can know."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave them alone."""
        yield


@asynccontextmanager
async def listening(config: Config, settings: HttpSettings) -> AsyncGenerator[Listening]:
    """Serve while the context is open; at its end requests in flight get their answers, for some seconds.

    `settings` are ones that `check` finds nothing wrong with. Raises `ConfigError` when the port cannot be had, and
    `StoreUnavailable`.
    """
    sockets = _bind(settings.host, settings.port)
    settings = replace(settings, port=sockets[0].getsockname()[1])
    app, site = create_http_app(config, settings)
    server = _Uvicorn(
        uvicorn.Config(
            app,
            http=Connection,
            lifespan="off",  # a store that cannot be opened is to be told of by us
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # Whoever may say where a request comes from decides whose failures count for whom.
            proxy_headers=bool(settings.public_urls),
            forwarded_allow_ips=list(settings.trusted_proxies),
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            timeout_graceful_shutdown=LAST_SECONDS,
            backlog=ACCEPTED_AT_ONCE,
        )
    )
    failure: Exception | None = None
    try:
        async with site.open():
            serving = asyncio.ensure_future(server.serve(sockets))
            try:
                await _started(server, serving)
                for bound in sockets:
                    bound.listen(BACKLOG)
                yield Listening(own_url(settings), site)
            except Exception as error:
                failure = error  # not through the site's tasks, which would wrap it
            finally:
                with anyio.CancelScope(shield=True):
                    site.stopping.set()
                    await site.requests.all_answered()
                    server.should_exit = True
                    await serving
    finally:
        for bound in sockets:
            bound.close()
    if failure is not None:
        raise failure


async def _started(server: uvicorn.Server, serving: asyncio.Future[None]) -> None:
    # It has its sockets, so this takes a few rounds of the event loop; and there is nothing to wait for.
    while not server.started and not serving.done():  # noqa: ASYNC110
        await asyncio.sleep(0)


def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of the host, with the same port. Raises `ConfigError`."""
    found: list[socket.socket] = []
    try:
        for family, _, _, _, address in sorted(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ):
            # The protocol, too: without it asyncio leaves Nagle's algorithm on, and every answer waits for 40 ms.
            bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            found.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], found[0].getsockname()[1] or port, *address[2:]))
            bound.setblocking(False)
    except OSError as error:
        for bound in found:
            bound.close()
        raise ConfigError(_cannot_listen(host, port, error)) from error
    return found


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken, perhaps by another bilt-mcp serve: choose another one with --port, "
            "or any free one with --port 0"
        )
    if error.errno == errno.EACCES:
        return f"this user may not listen on port {port}: choose one above 1023 with --port"
    told = error.strerror or os.strerror(error.errno or 0)
    return f"cannot listen on {host}, port {port} (--host, --port): {told}"
