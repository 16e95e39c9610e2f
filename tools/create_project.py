"""`bilt_create_project` (CONTRACT section 2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bilt_mcp.state import PermissionDenied, limited_to

from .arguments import NAME, Text
from .desk import ToolContext, caller_of, desk_of, key_of
from .registry import ToolSpec
from .results import ProjectResult, project_result


async def bilt_create_project(
    ctx: ToolContext,
    name: Annotated[str, Field(max_length=255, pattern=NAME, description="Its folder's too.")],
    description: Annotated[Text, Field(max_length=1000, description="For people.")] = "",
    visibility: Annotated[
        Literal["PUBLIC", "PRIVATE"], Field(description="Noted, not enforced.")
    ] = "PUBLIC",
) -> ProjectResult:
    """Create a project: a folder with a starter bilt.toml that runs. 10 an hour.

    Then declare its steps there, and start with bilt_get_session(project_id).
    """
    desk = await desk_of(ctx)
    if limited_to(desk.account) is not None:
        raise PermissionDenied(
            "Nothing was created: this key is for one project only. bilt_list_projects shows it; use that one."
        )
    new = desk.engine.new_project(name, description)
    project = await desk.store.create_project(
        desk.account,
        new.root,
        name,
        caller_of(ctx),
        new.make,
        description=description,
        visibility="private" if visibility == "PRIVATE" else "public",
        key=key_of(ctx),
    )
    return project_result(project)


TOOL = ToolSpec(
    bilt_create_project,
    title="Create a project",
    results=(ProjectResult,),
    read_only=False,
    idempotent=False,
)
