"""The routes by which a caller finds out what he may call: spaces, and the runtimes in them (CONTRACT section 3)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bilt_mcp.state import Offer, Project, ProjectNotFound
from bilt_mcp.tools import Desk

from .errors import Refused
from .identity import identity_of
from .invocation_models import Runtime, RuntimePage, Space, SpacePage
from .invocation_view import space_id
from .parsing import bad_cursor, cursor_for, cursor_of, id_of, limit_of, query_of
from .site import Site


def routes(site: Site) -> list[BaseRoute]:
    """All of them."""

    async def spaces(request: Request) -> Response:
        query = query_of(request, "cursor", "limit")
        limit_of(query)
        if cursor_of(query) is not None:
            raise bad_cursor()  # there was no page that has given one
        account = str(identity_of(request.scope).account)
        space: Space = {"id": space_id(account), "name": account}
        page: SpacePage = {"data": [space], "nextCursor": None}
        return JSONResponse(page)

    async def runtimes(request: Request) -> Response:
        query = query_of(request, "cursor", "limit")
        limit, after = limit_of(query), cursor_of(query)
        desk = await site.desk(identity_of(request.scope))
        check_space(desk, request)
        try:
            projects = await desk.store.projects(desk.account, after)
        except ProjectNotFound:
            raise bad_cursor() from None
        shown = projects[:limit]
        offers = await desk.engine.offers(shown)
        page: RuntimePage = {
            "data": [_runtime(*each) for each in zip(shown, offers, strict=True)],
            "nextCursor": cursor_for(shown[-1].id) if len(projects) > limit else None,
        }
        return JSONResponse(page)

    return [
        Route("/v1/spaces", spaces, methods=["GET"]),
        Route("/v1/spaces/{id}/runtimes", runtimes, methods=["GET"]),
    ]


def check_space(desk: Desk, request: Request) -> None:
    """Raise `Refused` unless the space in the path is the caller's."""
    gone = Refused(
        404, "space_not_found", "No space with this id.", hint="GET /v1/spaces lists yours."
    )
    if id_of(request, "id", gone) != space_id(desk.account):
        raise gone


async def runtime_of(desk: Desk, request: Request) -> Project:
    """The project in the path. Raises `Refused`, with the same words for whatever is not the caller's."""
    check_space(desk, request)
    gone = Refused(
        404,
        "runtime_not_found",
        "No runtime with this id in this space.",
        hint="GET /v1/spaces/{id}/runtimes lists those that there are.",
    )
    project_id = id_of(request, "runtimeId", gone)
    try:
        return await desk.store.project(desk.account, project_id)
    except ProjectNotFound:
        raise gone from None


def _runtime(project: Project, offer: Offer) -> Runtime:
    return {
        "id": project.id,
        "name": project.name,
        "kind": "desktop",
        "status": offer.status,
        "reason": offer.reason,
        "calls": [
            {
                "name": call.name,
                "deploys": call.deploy,
                "needsConfirmation": call.confirm,
                "timeoutMs": None if call.timeout is None else round(call.timeout * 1000),
            }
            for call in offer.calls
        ],
    }
