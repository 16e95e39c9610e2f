"""`bilt_get_project` (CONTRACT section 2)."""

from __future__ import annotations

from .arguments import ProjectId
from .desk import ToolContext, desk_of
from .registry import ToolSpec
from .results import ProjectResult, project_result


async def bilt_get_project(ctx: ToolContext, project_id: ProjectId) -> ProjectResult:
    """Show a project: its name, description and folder, where its bilt.toml is."""
    desk = await desk_of(ctx)
    return project_result(await desk.store.project(desk.account, project_id))


TOOL = ToolSpec(
    bilt_get_project,
    title="Look at a project",
    results=(ProjectResult,),
    read_only=True,
    idempotent=True,
)
