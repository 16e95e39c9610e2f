"""The composition of the HTTP server: its routes behind its gate."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp

from bilt_mcp.server.config import Config

from . import (
    chat,
    chat_stream,
    health,
    invocations,
    login,
    mcp,
    metrics,
    openapi,
    spaces,
    well_known,
)
from .chat_operations import OPERATIONS as CHAT
from .gate import Gate
from .invocation_operations import OPERATIONS as INVOCATIONS
from .readiness import Readiness
from .settings import HttpSettings
from .site import Site

OPERATIONS = (*health.OPERATIONS, *metrics.OPERATIONS, *INVOCATIONS, *CHAT)
"""What the OpenAPI document tells of."""


def create_http_app(config: Config, settings: HttpSettings) -> tuple[ASGIApp, Site]:
    """The whole server as an ASGI application, to be run with its lifespan, and what its routes share.

    `settings.port` is the one that it is reached by.
    """
    site = Site(config, settings)
    return Gate(routed(site), site), site


def all_routes(site: Site) -> list[BaseRoute]:
    """Every route there is."""
    readiness = Readiness(site)
    return [
        # Routes are tried one after the other, so what is polled comes first.
        *invocations.routes(site),
        *health.routes(site, readiness),
        *metrics.routes(site, readiness),
        *mcp.routes(site),
        *spaces.routes(site),
        *well_known.routes(site),
        *login.routes(site),
        *chat.routes(site),
        *chat_stream.routes(site),
        *openapi.routes(OPERATIONS),
    ]


def routed(site: Site) -> Router:
    """The routes alone. What a handler raises goes on to the gate, so this is no `Starlette`, which would answer it."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncGenerator[None]:
        async with site.open():
            yield

    return Router(all_routes(site), redirect_slashes=False, lifespan=lifespan)
