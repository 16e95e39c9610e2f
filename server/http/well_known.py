"""Where an OAuth client learns which issuer this server believes: there only where it was given one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from .site import Site
from .whereabouts import METADATA, base_url


def routes(site: Site) -> list[BaseRoute]:
    """The metadata of the server, and of `/mcp` alone; nothing without an issuer."""
    issuer = site.settings.oauth_issuer
    if issuer is None:
        return []
    from .oauth import metadata

    base = base_url(site.settings)

    async def whole(_: Request) -> Response:
        return JSONResponse(metadata(base, issuer))

    async def mcp(_: Request) -> Response:
        return JSONResponse(metadata(f"{base}/mcp", issuer))

    return [
        Route(METADATA, whole, methods=["GET"]),
        Route(f"{METADATA}/mcp", mcp, methods=["GET"]),
    ]
