"""Whether the server can do its work, for whoever watches over it. It tells nothing of anybody's sessions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from .site import Site


def routes(site: Site) -> list[BaseRoute]:
    """`/health`, `/health/live` and `/health/ready`."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok", "live": True})

    return [Route("/health/live", live, methods=["GET"])]
