"""A workflow as a resource: where it stands, what each step did and when, who decided what, and how it ended."""

from __future__ import annotations

from typing import Any

from bilt_mcp.state import AuditEntry, History, PlannedStep, Session, Workflow, iso, iso_or_none

from .results import session_result, stopped_result
from .uris import ArtifactsUri, LogUri, SessionUri

MOST_DECISIONS = 100
"""The newest that are told: an agent may pause and resume without end."""


def workflow_resource(history: History) -> dict[str, Any]:
    """What `bilt://workflows/{workflow_id}` answers: the same bytes as long as nothing changes, its clocks aside."""
    workflow = history.workflow
    # As the session tells them while it is its newest.
    alone = Session(workflow.session_id, history.project_id, 0, 0, 0, workflow)
    shown = session_result(alone).model_dump(mode="json", include={"progress", "failure"})
    return {
        "workflow_id": workflow.id,
        "session_id": workflow.session_id,
        "project_id": history.project_id,
        "status": workflow.status.value,
        "created_at": iso(workflow.created_at),
        "started_at": iso_or_none(workflow.started_at),
        "finished_at": iso_or_none(workflow.finished_at),
        "progress": shown["progress"],
        "steps": [_step(history, n, step) for n, step in enumerate(history.plan.steps, 1)],
        "failure": shown["failure"],
        "deploy": workflow.deploy.value,
        "cancel": _cancel(workflow),
        "decisions": [_decision(entry) for entry in history.decisions[-MOST_DECISIONS:]],
        "session": str(SessionUri(workflow.session_id)),
        "artifacts": str(ArtifactsUri(workflow.id)),
    }


def log_uri(history: History, position: int) -> LogUri:
    """Where the log of a step is read: by its name, or by its number where several steps have that name."""
    names = [step.name for step in history.plan.steps]
    address = names[position - 1]
    if names.count(address) > 1:
        address = str(position)
        while address in names:  # a step may be called "2"
            address = f"0{address}"
    return LogUri(history.workflow.id, address)


def _step(history: History, position: int, step: PlannedStep) -> dict[str, Any]:
    runs = history.runs_of(position)
    return {
        "step": position,
        "name": step.name,
        "deploy": step.deploy,
        "outcome": _outcome(history, position),
        "attempts": len(runs),
        "started_at": iso(runs[0].started_at) if runs else None,
        "finished_at": iso_or_none(runs[-1].finished_at) if runs else None,
        "exit_code": runs[-1].exit_code if runs else None,
        "log": str(log_uri(history, position)) if runs else None,
    }


def _decision(entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": iso(entry.at),
        "action": entry.action,
        "client": entry.caller.client,
        "surface": entry.caller.surface,
        "principal": entry.caller.principal or None,
        "reason": entry.reason,
    }


def _outcome(history: History, position: int) -> str:
    """What became of a step: as its newest attempt ended, or why it has none."""
    runs = history.runs_of(position)
    if runs:
        return runs[-1].outcome or "running"
    if history.workflow.position > position:
        return "skipped"
    return "not_started"


def _cancel(workflow: Workflow) -> dict[str, Any] | None:
    if workflow.cancel_requested_at is None:
        return None
    stopped = workflow.stopped
    return {
        "requested_at": iso(workflow.cancel_requested_at),
        "reason": workflow.cancel_reason,
        "stopped": None if stopped is None else stopped_result(stopped).model_dump(mode="json"),
    }
