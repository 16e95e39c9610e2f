"""`/health`: whether the server lives, and whether it can do its work. It tells nothing of anybody's sessions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from .operations import Answer, Operation
from .readiness import Readiness
from .site import Site


class Checks(BaseModel):
    """What was looked at, not longer ago than a second."""

    store: Literal["ok", "full", "unavailable", "slow"]
    worker: Literal["alive", "idle", "missing", "unknown"]


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "unavailable", "stopping"]
    live: bool
    ready: bool
    checks: Checks


class Live(BaseModel):
    """That the server answers at all."""

    status: Literal["ok"] = "ok"
    live: Literal[True] = True


_READY = {200: Answer("It can do its work.", Health), 503: Answer("It cannot.", Health)}
OPERATIONS = (
    Operation(
        "get", "/health", "health", "Liveness and readiness.", "health", _READY, credential=None
    ),
    Operation("get", "/health/ready", "ready", "Readiness.", "health", _READY, credential=None),
    Operation(
        "get",
        "/health/live",
        "live",
        "Liveness: that it answers.",
        "health",
        {200: Answer("It does.", Live)},
        credential=None,
    ),
)


def routes(site: Site, readiness: Readiness) -> list[BaseRoute]:
    """The three routes."""

    async def ready(_: Request) -> Response:
        found = await readiness.look()
        stopping = site.stopping.is_set()
        good = found.good and not stopping
        status: Literal["ok", "unavailable", "stopping"] = "ok" if good else "unavailable"
        checks = Checks.model_validate({"store": found.store, "worker": found.worker})
        told = Health(
            status="stopping" if stopping else status, live=True, ready=good, checks=checks
        )
        return JSONResponse(told.model_dump(), 200 if good else 503)

    async def live(_: Request) -> Response:
        return JSONResponse(Live().model_dump())

    return [
        Route("/health", ready, methods=["GET"]),
        Route("/health/ready", ready, methods=["GET"]),
        Route("/health/live", live, methods=["GET"]),
    ]
