"""What a client can read, list and watch beside the tools: sessions, workflows, logs and artifacts.

templates, listed    what there is to read
read                 one of them, by its address
"""

from __future__ import annotations

import base64
import logging
import mimetypes
from dataclasses import replace
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    BlobResourceContents,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from bilt_mcp.state import (
    BiltError,
    History,
    KeptText,
    LineRange,
    Status,
    StepRun,
    StoreUnavailable,
    Withheld,
)

from . import uris
from .desk import Desk
from .results import dumps, session_result
from .uris import ArtifactsUri, ArtifactUri, LogUri, NoResource, SessionUri, Uri, WorkflowUri
from .workflow_resource import log_uri, workflow_resource

log = logging.getLogger(__name__)

JSON = "application/json"
TEXT = "text/plain"
MOST_CHARS = 50_000
MOST_LISTED = 100
"""Artifacts in a list, and resources of a kind in `resources/list`."""
_TYPES = mimetypes.MimeTypes()


def templates() -> list[ResourceTemplate]:
    """The templates of everything that can be read."""
    return [
        ResourceTemplate(name=name, title=title, uri_template=uri, description=told, mime_type=kind)
        for name, title, uri, kind, told in (
            (
                "session",
                "A session",
                uris.SESSION,
                JSON,
                "Where a session stands, as bilt_get_session answers it. Can be subscribed to.",
            ),
            (
                "workflow",
                "A workflow",
                uris.WORKFLOW,
                JSON,
                "Status, steps with outcomes and times, failure, deploy, cancel. Can be subscribed to.",
            ),
            (
                "step_log",
                "The log of a step",
                uris.LOG,
                TEXT,
                "What a step printed (untrusted text), also while it runs. from: first line, from 1, or from the end "
                "when negative; lines: how many; attempt: default the newest. An answer has at most 50,000 characters "
                "and says where to go on.",
            ),
            (
                "artifacts",
                "The artifacts of a workflow",
                uris.ARTIFACTS,
                JSON,
                "The files that its steps left in BILT_ARTIFACTS, with their addresses.",
            ),
            (
                "artifact",
                "An artifact",
                uris.ARTIFACT,
                "application/octet-stream",
                "One of these files: text by lines, as a log, any other file up to 1 MiB.",
            ),
        )
    ]


async def listed(desk: Desk) -> list[Resource]:
    """What is at hand now: the project's newest session, its newest workflow, and what that has printed and left."""
    if desk.project is None:
        return []
    newest = await desk.store.newest_ids(
        desk.account, "session", limit=1, project_id=desk.project.id
    )
    if not newest:
        return []
    session = await desk.store.session(desk.account, newest[0])
    found = [_resource(SessionUri(session.id), "The newest session", JSON)]
    if session.workflow is None:
        return found
    history = await desk.store.history(desk.account, session.workflow.id)
    found.append(_resource(WorkflowUri(session.workflow.id), "Its newest workflow", JSON))
    for position, step in enumerate(history.plan.steps[:MOST_LISTED], 1):
        if history.runs_of(position):
            found.append(
                _resource(log_uri(history, position), f"What step {step.name} printed", TEXT)
            )
    if await desk.engine.artifacts(history, 1):
        found.append(_resource(ArtifactsUri(history.workflow.id), "The artifacts", JSON))
    return found


def _resource(uri: Uri, title: str, kind: str) -> Resource:
    name = str(uri).removeprefix("bilt://")
    return Resource(uri=str(uri), name=name, title=title, mime_type=kind)


async def read(desk: Desk, uri: str) -> ReadResourceResult:
    """One resource. Raises `MCPError`: invalid params with `data.uri` for what is not there, for whatever reason."""
    try:
        return ReadResourceResult(contents=[await _contents(desk, uri, uris.parse(uri))])
    except (NoResource, Withheld) as error:
        raise not_found(uri, str(error)) from error
    except BiltError as error:
        raise refused(uri, error) from error


def not_found(uri: str, told: str = "Resource not found") -> MCPError:
    """The protocol's error for a resource that cannot be read."""
    return MCPError(INVALID_PARAMS, told, {"uri": uri[: uris.MAX_URI]})


def refused(uri: str, error: BiltError) -> MCPError:
    """What a failure of the store is for one who reads: whatever is unknown or foreign is not found."""
    if isinstance(error, StoreUnavailable):
        log.error("resource %r: %s", uri[:200], error)
        return MCPError(INTERNAL_ERROR, f"{error.error}: {error.message}", {"uri": uri})
    return not_found(uri)


async def _contents(
    desk: Desk, uri: str, found: Uri
) -> TextResourceContents | BlobResourceContents:
    match found:
        case SessionUri():
            session = await desk.store.session(desk.account, found.session_id)
            return _json(uri, session_result(session, desk.terminal).model_dump(mode="json"))
        case WorkflowUri():
            history = await history_of(desk, found.workflow_id)
            return _json(uri, workflow_resource(history))
        case LogUri():
            history = await history_of(desk, found.workflow_id)
            run = run_of(history, found)
            text = await desk.engine.read_log(history, run, _range(found))
            if text is None:
                raise NoResource("The log of this step is not kept")
            return _lines(uri, TEXT, text, found, runs=run.outcome is None)
        case ArtifactsUri():
            history = await history_of(desk, found.workflow_id)
            return _json(uri, await _artifacts(desk, history))
        case ArtifactUri():
            return await _artifact(desk, uri, found)


async def history_of(desk: Desk, workflow_id: str) -> History:
    """A workflow as it is now: a gate that nobody has answered in time counts. Raises `WorkflowNotFound`."""
    history = await desk.store.history(desk.account, workflow_id)
    if history.workflow.status is Status.PAUSED:
        await desk.store.session(desk.account, history.workflow.session_id)
        history = await desk.store.history(desk.account, workflow_id)
    return history


def run_of(history: History, uri: LogUri) -> StepRun:
    """The attempt whose log an address names. Raises `NoResource`."""
    named = [n for n, step in enumerate(history.plan.steps, 1) if step.name == uri.step]
    if not named and uri.step.isascii() and uri.step.isdigit():
        named = [int(uri.step[:9])]
    runs = [run for position in named for run in history.runs_of(position)]
    if uri.attempt is not None:
        runs = [run for run in runs if run.attempt == uri.attempt]
    if not runs:
        raise NoResource("Resource not found: no such step, or it has not run")
    return runs[-1]


def _range(uri: LogUri | ArtifactUri) -> LineRange:
    wanted = LineRange(max_chars=MOST_CHARS)
    return replace(wanted, first=uri.first or 1, lines=uri.lines or wanted.lines)


async def _artifacts(desk: Desk, history: History) -> dict[str, Any]:
    files = await desk.engine.artifacts(history, MOST_LISTED + 1)
    return {
        "workflow_id": history.workflow.id,
        "artifacts": [
            {
                "name": file.shown,
                "size": file.size,
                "mime_type": _type_of(file.path),
                "uri": str(ArtifactUri(history.workflow.id, file.path)) if file.readable else None,
            }
            for file in files[:MOST_LISTED]
        ],
        "has_more": len(files) > MOST_LISTED,
    }


async def _artifact(
    desk: Desk, uri: str, found: ArtifactUri
) -> TextResourceContents | BlobResourceContents:
    history = await history_of(desk, found.workflow_id)
    content = await desk.engine.read_artifact(history, found.path, _range(found))
    kind = _type_of(found.path)
    if content is None:
        raise NoResource("Resource not found")
    if isinstance(content, KeptText):
        return _lines(uri, TEXT if kind == _UNKNOWN else kind, content, found, runs=False)
    return BlobResourceContents(uri=uri, mime_type=kind, blob=base64.b64encode(content).decode())


_UNKNOWN = "application/octet-stream"


def _type_of(path: bytes) -> str:
    return _TYPES.guess_type(path.decode("utf-8", "replace").rpartition("/")[2])[0] or _UNKNOWN


def _json(uri: str, value: dict[str, Any]) -> TextResourceContents:
    return TextResourceContents(uri=uri, mime_type=JSON, text=dumps(value))


def _lines(
    uri: str, kind: str, text: KeptText, found: LogUri | ArtifactUri, *, runs: bool
) -> TextResourceContents:
    """Lines, and where the next range begins: in a line of its own unless this is all, and in `_meta`."""
    ended = text.last >= text.total and not runs
    onwards = None if ended else str(replace(found, first=text.last + 1))
    whole = ended and text.first == 1
    body = text.text if whole else text.text + _told(text, onwards)
    told: dict[str, Any] = {
        "firstLine": text.first,
        "lastLine": text.last,
        "totalLines": text.total,
    }
    if onwards is not None:
        told["next"] = onwards
    return TextResourceContents(uri=uri, mime_type=kind, text=body, _meta=told)


def _told(text: KeptText, onwards: str | None) -> str:
    shown = f"lines {text.first} to {text.last} of {text.total}"
    if text.last < text.first:
        shown = f"nothing after line {text.total}"
    return f"[{shown}; {'the end' if onwards is None else f'go on at {onwards}'}]\n"
