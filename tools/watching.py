"""Looking at a resource again and again, to tell somebody when it has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from bilt_mcp.state import BiltError, Status, StepRun, Workflow

from .desk import Desk
from .resources import history_of, not_found, refused, run_of
from .uris import LogUri, NoResource, SessionUri, WorkflowUri, parse


@dataclass(frozen=True)
class Look:
    """What a look at a watched resource found."""

    mark: object
    """Different when the resource is."""
    active: bool = False
    """Whether it needs a worker to get on."""
    ticking: bool = False
    """Whether it may change by the clock alone: a gate may have its time."""


@dataclass(frozen=True)
class Watch:
    """A resource that somebody wants to be told of."""

    session_id: str
    """The session that it belongs to; empty for the list of resources."""
    look: Callable[[], Awaitable[Look]]
    """Raises `BiltError` when the resource is gone."""


async def watch(desk: Desk, uri: str) -> Watch:
    """How to look at a resource of the account again and again.

    Raises `MCPError` as `read` does. Sessions, workflows and logs can be watched.
    """
    try:
        match parse(uri):
            case SessionUri(session_id):
                await desk.store.session(desk.account, session_id)
                return Watch(session_id, lambda: _look_at_session(desk, session_id))
            case WorkflowUri(workflow_id):
                workflow = await desk.store.workflow(desk.account, workflow_id)
                return Watch(workflow.session_id, lambda: _look_at_workflow(desk, workflow_id))
            case LogUri() as found:
                history = await desk.store.history(desk.account, found.workflow_id)
                run = run_of(history, found)
                session_id = history.workflow.session_id
                return Watch(session_id, lambda: _look_at_log(desk, found.workflow_id, run))
            case _:
                raise NoResource("This resource does not change, so nobody can be told of it")
    except NoResource as error:
        raise not_found(uri, str(error)) from error
    except BiltError as error:
        raise refused(uri, error) from error


async def _look_at_session(desk: Desk, session_id: str) -> Look:
    session = await desk.store.session(desk.account, session_id)
    return Look(session.revision, _active(session.workflow), _ticking(session.workflow))


async def _look_at_workflow(desk: Desk, workflow_id: str) -> Look:
    history = await history_of(desk, workflow_id)
    workflow = history.workflow
    still = replace(workflow, elapsed_seconds=None, quiet_seconds=None)
    return Look((still, history.runs, history.decisions), _active(workflow), _ticking(workflow))


async def _look_at_log(desk: Desk, workflow_id: str, run: StepRun) -> Look:
    workflow = await desk.store.workflow(desk.account, workflow_id)
    return Look(desk.engine.log_mark(workflow_id, run), _active(workflow))


def _active(workflow: Workflow | None) -> bool:
    return workflow is not None and not workflow.final and workflow.status is not Status.PAUSED


def _ticking(workflow: Workflow | None) -> bool:
    return workflow is not None and workflow.status is Status.PAUSED


def listing(desk: Desk) -> Watch:
    """How to look at the list of resources: it changes with the newest session, its newest workflow, and its steps."""

    async def look() -> Look:
        if desk.project is None:
            return Look(None)
        newest = await desk.store.newest_ids(
            desk.account, "session", limit=1, project_id=desk.project.id
        )
        if not newest:
            return Look(None)
        session = await desk.store.session(desk.account, newest[0])
        if session.workflow is None:
            return Look(session.id)
        history = await desk.store.history(desk.account, session.workflow.id)
        begun = len({run.position for run in history.runs})
        return Look((session.id, session.workflow.id, begun))

    return Watch("", look)
