"""`bilt_get_session` (CONTRACT section 2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bilt_mcp.state import Session, SessionNotFound

from .arguments import ProjectId, SessionId
from .desk import Desk, ToolContext, desk_of
from .registry import ToolSpec
from .results import SessionResult, session_result
from .waiting import Beat, needs_worker, wait_until

UNSET = -1


async def bilt_get_session(
    ctx: ToolContext,
    session_id: SessionId = "",
    project_id: Annotated[
        ProjectId,
        Field(description="Used without session_id. Default: the project of this server."),
    ] = "",
    wait_seconds: Annotated[
        float,
        Field(ge=0, le=45, description="Hold the answer until the revision passes after_revision."),
    ] = 0,
    after_revision: Annotated[int, Field(ge=0, description="Default: the current one.")] = UNSET,
) -> SessionResult:
    """Show where a session's newest workflow stands, and what to do next.

    Call it first, without arguments, for the session_id that all other tools need. While a workflow runs, call it with
    wait_seconds=45 and after_revision=<last revision>: it answers as soon as something changes, so never poll. For
    output use bilt_get_messages.
    """
    desk = await desk_of(ctx)
    if session_id:
        session = await desk.store.session(desk.account, session_id)
    else:
        session = await _newest(desk, project_id or desk.own_project.id)
    if needs_worker(session):
        await desk.engine.wake(news=False)
    known = session.revision if after_revision == UNSET else after_revision
    if wait_seconds and session.revision <= known:
        session = await wait_until(
            desk, session.id, lambda now: now.revision > known, wait_seconds, beat=Beat(ctx)
        )
    return session_result(session, desk.terminal)


async def _newest(desk: Desk, project_id: str) -> Session:
    """The project's newest session; an idle one is made where there is none, unless the caller may make nothing."""
    if not desk.read_only:
        return await desk.store.latest_session(desk.account, project_id)
    project = await desk.store.project(desk.account, project_id)
    newest = await desk.store.newest_ids(desk.account, "session", limit=1, project_id=project.id)
    if not newest:
        raise SessionNotFound(
            "This project has no session yet, and a read-only key cannot begin one. Call again when somebody has."
        )
    return await desk.store.session(desk.account, newest[0])


TOOL = ToolSpec(
    bilt_get_session,
    title="Look at a session",
    results=(SessionResult,),
    read_only=True,
    idempotent=True,
)
