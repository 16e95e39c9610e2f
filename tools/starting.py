"""Starting workflows: from a message, or from the steps that a caller names. Every way in does it so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio

from bilt_mcp.state import CalledStep, Caller, Prepared, Project, Started, message_of

from .desk import Desk


async def start_workflow(
    desk: Desk, session_id: str, message: str, key: str | None, by: Caller
) -> Started:
    """Start one for a message, unless `key` came with it before; what is accepted runs, also when the caller goes.

    Raises as `Engine.prepare`, `SessionStore.first_answer` and `SessionStore.start`.
    """
    if key is not None:
        first = await desk.store.first_answer(desk.account, session_id, message, key)
        if first is not None:
            return first
    session = await desk.store.session(desk.account, session_id)
    project = await desk.store.project(desk.account, session.project_id)
    prepared = await desk.engine.prepare(project, message)
    return await _accepted(
        desk,
        prepared,
        lambda: desk.store.start(
            desk.account,
            session_id,
            message,
            prepared.plan,
            workflow_id=prepared.workflow_id,
            key=key,
            by=by,
        ),
    )


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
    """Start an invocation of these steps; a `key` that came before with this `digest` gets its first answer.

    `request` is what the caller sent, to be kept as it is. Raises what `SessionStore.invoke` raises.
    """
    if key is not None:
        first = await desk.store.first_invocation(desk.account, project.id, key, digest)
        if first is not None:
            return first
    prepared = await desk.engine.prepare_calls(project, steps, request)
    return await _accepted(
        desk,
        prepared,
        lambda: desk.store.invoke(
            desk.account,
            project.id,
            message_of(prepared.plan),
            prepared.plan,
            workflow_id=prepared.workflow_id,
            key=key,
            digest=digest,
            by=by,
        ),
    )


async def _accepted(
    desk: Desk, prepared: Prepared, accept: Callable[[], Awaitable[Started]]
) -> Started:
    """What `accept` answers, with a worker told of it; what was prepared and is not needed is discarded."""
    started: Started | None = None
    # Once it is accepted it shall run, also when the client has gone in this very moment.
    with anyio.CancelScope(shield=True):
        try:
            started = await accept()
        except Exception:
            desk.engine.discard(prepared)
            raise
        if started.workflow_id != prepared.workflow_id:
            desk.engine.discard(prepared)
        await desk.engine.wake()
    assert started is not None
    return started
