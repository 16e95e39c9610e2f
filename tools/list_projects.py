"""`bilt_list_projects` (CONTRACT section 2)."""

from __future__ import annotations

from .desk import ToolContext, desk_of
from .registry import ToolSpec
from .results import ProjectsResult, project_result


async def bilt_list_projects(ctx: ToolContext) -> ProjectsResult:
    """List the user's projects, newest first; bilt_get_session takes the id of one as project_id."""
    desk = await desk_of(ctx)
    found = await desk.store.projects(desk.account)
    return ProjectsResult(projects=[project_result(project) for project in found])


TOOL = ToolSpec(
    bilt_list_projects,
    title="List projects",
    results=(ProjectsResult,),
    read_only=True,
    idempotent=True,
)
