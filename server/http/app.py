"""The composition of the HTTP server: its routes behind its gate."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp

from bilt_mcp.server.config import Config

from .settings import HttpSettings
from .site import Site


def create_http_app(config: Config, settings: HttpSettings) -> tuple[ASGIApp, Site]:
    """The whole server as an ASGI application, to be run with its lifespan, and what its routes share."""
    site = Site(config, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with site.open():
            yield

    app = Starlette(routes=[], lifespan=lifespan)
    return app, site
