"""Starting the steps that a caller names, for every way in that can name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from bilt_mcp.state import CalledStep, Caller, Project, Started, message_of

from .desk import Desk


async def start_calls(
    desk: Desk,
    project: Project,
    steps: Sequence[CalledStep],
    request: Mapping[str, Any],
    by: Caller,
    *,
    key: str | None = None,
    digest: str = "",
) -> Started:
    """Accept an invocation of these steps; a `key` that came before with this `digest` gets its first answer.

    Raises what `SessionStore.invoke` raises.
    """
    if key is not None:
        first = await desk.store.first_invocation(desk.account, project.id, key, digest)
        if first is not None:
            return first
    prepared = await desk.engine.prepare_calls(project, steps, request)
    started: Started | None = None
    # Once it is accepted it shall run, also when the client has gone in this very moment.
    with anyio.CancelScope(shield=True):
        try:
            started = await desk.store.invoke(
                desk.account,
                project.id,
                message_of(prepared.plan),
                prepared.plan,
                workflow_id=prepared.workflow_id,
                key=key,
                digest=digest,
                by=by,
            )
        except Exception:
            desk.engine.discard(prepared)
            raise
        if started.workflow_id != prepared.workflow_id:
            desk.engine.discard(prepared)
        await desk.engine.wake()
    assert started is not None
    return started
