"""Completing the arguments of prompts and of resource templates: ids of the account, and steps of a workflow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mcp_types import (
    CompleteRequestParams,
    Completion,
    PromptReference,
)

from bilt_mcp.state import WorkflowNotFound

from . import uris
from .desk import Desk
from .prompts import has_argument
from .uris import NoResource

MOST = 100
"""Values of one answer: the protocol's limit."""
_ID_PART = re.compile(r"[0-9a-f-]{0,36}")
_VARIABLES = {
    template: frozenset(re.findall(r"\w+", " ".join(re.findall(r"\{\W?([\w,]+)\}", template))))
    for template in uris.TEMPLATES
}


async def complete(desk: Desk, params: CompleteRequestParams) -> Completion:
    """The values that begin with what was typed, newest first; none for what nobody knows."""
    argument, typed = params.argument.name, params.argument.value
    if isinstance(params.ref, PromptReference):
        known = has_argument(params.ref.name, argument)
    else:
        known = argument in _VARIABLES.get(params.ref.uri, ())
    if not known:
        return _completion([])
    given = (params.context.arguments if params.context else None) or {}
    match argument:
        case "session_id" | "workflow_id":
            return _completion(await _ids(desk, argument, typed, given))
        case "step":
            return _completion(await _steps(desk, typed, given.get("workflow_id", "")))
        case "path":
            return _completion(await _paths(desk, typed, given.get("workflow_id", "")))
        case _:
            return _completion([])


def _completion(found: Sequence[str]) -> Completion:
    return Completion(
        values=list(found[:MOST]),
        total=len(found) if len(found) <= MOST else None,
        has_more=len(found) > MOST,
    )


async def _ids(desk: Desk, argument: str, typed: str, given: Mapping[str, str]) -> Sequence[str]:
    prefix = typed.lower()
    if not _ID_PART.fullmatch(prefix):
        return []
    if argument == "session_id":
        return await desk.store.newest_ids(desk.account, "session", prefix=prefix, limit=MOST + 1)
    return await desk.store.newest_ids(
        desk.account,
        "workflow",
        prefix=prefix,
        limit=MOST + 1,
        session_id=given.get("session_id", "").lower() or None,
    )


async def _steps(desk: Desk, typed: str, workflow_id: str) -> Sequence[str]:
    try:
        history = await desk.store.history(desk.account, uris.known_id(workflow_id))
    except (NoResource, WorkflowNotFound):
        return []
    begun = [s.name for n, s in enumerate(history.plan.steps, 1) if history.runs_of(n)]
    return [name for name in dict.fromkeys(begun) if name.lower().startswith(typed.lower())]


async def _paths(desk: Desk, typed: str, workflow_id: str) -> Sequence[str]:
    try:
        history = await desk.store.history(desk.account, uris.known_id(workflow_id))
    except (NoResource, WorkflowNotFound):
        return []
    files = await desk.engine.artifacts(history, 10 * MOST)
    return [f.shown for f in files if f.readable and f.shown.startswith(typed)]
