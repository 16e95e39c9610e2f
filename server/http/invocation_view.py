"""A workflow as bctrl words it (CONTRACT sections 1 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import cast
from uuid import UUID, uuid5

from bilt_mcp.state import (
    Failure as WorkflowFailure,
)
from bilt_mcp.state import (
    FailureCode,
    InvocationStatus,
    PlannedStep,
    StepRun,
    Workflow,
    iso,
    iso_or_none,
)
from bilt_mcp.state import (
    Invocation as Found,
)

from .invocation_failure import step_failed, step_refused
from .invocation_models import (
    Binding,
    Failure,
    Invocation,
    Progress,
    Resolved,
    Result,
    StepFailed,
    StepOk,
)
from .invocation_request import InvocationRequest

_NAMESPACE = UUID("3f0ad9c4-6f1e-5d0b-9b57-8d1c6f6f2b1a")
"""Ours, for ids that are made of names: the same name, the same id, for ever."""
ALIVE = (InvocationStatus.DISPATCHING, InvocationStatus.RUNNING, InvocationStatus.CANCELLING)


@lru_cache(1024)
def space_id(account: str) -> str:
    """The id of the space that an account is."""
    return str(uuid5(_NAMESPACE, f"space/{account}"))


def invocation_view(
    found: Found, account: str, *, artifacts: int, heartbeat: int | None
) -> Invocation:
    """The whole answer. `heartbeat` is the worker's, milliseconds since 1970."""
    workflow = found.workflow
    request = _request(found)
    return {
        "id": workflow.id,
        "spaceId": space_id(account),
        "runtimeId": found.project_id,
        "runId": workflow.session_id,
        "sequenceNo": found.sequence,
        "status": found.status.value,
        "executionMode": "durable",
        "runtimeKind": "desktop",
        "entryCall": request["steps"][0]["call"],
        "stepCount": len(request["steps"]),
        "createdAt": iso(workflow.created_at),
        "startedAt": iso_or_none(workflow.started_at),
        "finishedAt": iso_or_none(workflow.finished_at),
        "durationMs": _duration(workflow.started_at, workflow.finished_at),
        "cancelRequestedAt": iso_or_none(workflow.cancel_requested_at),
        "lastHeartbeatAt": iso_or_none(_last_alive(found, heartbeat)),
        "progress": None if workflow.final else _progress(found),
        "request": request,
        "result": _result(found) if workflow.final else None,
        "error": _failure(workflow.failure),
        "artifactCount": artifacts,
        "connector": None,
        "correlationId": None,
        "metadata": None,
    }


def _request(found: Found) -> InvocationRequest:
    if found.plan.request is not None:
        return cast("InvocationRequest", found.plan.request)  # it was checked when it came
    return {
        "runtimeId": found.project_id,
        "steps": [{"call": step.name} for step in found.plan.steps],
        "mode": "fail-fast",
    }


def _last_alive(found: Found, heartbeat: int | None) -> int | None:
    if found.workflow.final:
        return found.workflow.finished_at
    return heartbeat if found.status in ALIVE else None


# -- while it is not over --------------------------------------------------------------------------


def _progress(found: Found) -> Progress:
    workflow = found.workflow
    event, message = _event(found)
    told: Progress = {
        "lastEventType": event,
        "message": message,
        "step": min(workflow.position, workflow.total_steps),
        "totalSteps": workflow.total_steps,
    }
    if workflow.step is not None:
        told["currentCall"] = workflow.step
    return told


def _event(found: Found) -> tuple[str, str]:
    """What happened last, and what stands. Only words of ours and of the project's file: no output of builds."""
    workflow, status = found.workflow, found.status
    gate = found.pending_action
    if status is InvocationStatus.QUEUED:
        return "queued", "Accepted and durable; it starts when a worker is free."
    if status is InvocationStatus.DISPATCHING and not gate:
        return "claimed", "A worker has it and is about to begin."
    if status is InvocationStatus.CANCELLING:
        return "cancel_requested", "Being cancelled; its processes are being killed."
    if gate is not None:
        return "confirmation_required", (
            f"Waiting for a person to confirm step {gate.step}: {gate.message}"
        )
    if workflow.status.value == "paused":
        return "paused", "Paused by request; nothing of it runs until it is resumed."
    where = f"Step {min(workflow.position, workflow.total_steps)} of {workflow.total_steps}"
    run = found.last_run(workflow.position)
    if run is None or workflow.step is None:
        return "step_ended", f"{where} comes next."
    told = f"{where}: {workflow.step}"
    if run.attempt > 1:
        told += f", attempt {run.attempt}"
    if workflow.step_percent is not None:
        return "step_progress", f"{told}, {workflow.step_percent} %"
    return "step_started", told


# -- when it is over -------------------------------------------------------------------------------


def _result(found: Found) -> Result:
    workflow = found.workflow
    return {
        "mode": "fail-fast",
        "ok": found.status is InvocationStatus.SUCCEEDED,
        "runtimeId": found.project_id,
        "steps": [
            *_done(found),
            *(step_refused(refusal) for refusal in found.plan.refused),
            *_failed(workflow.failure, found),
        ],
    }


def _done(found: Found) -> list[StepOk]:
    steps: list[StepOk] = []
    runs: dict[int, list[StepRun]] = {}
    for run in found.runs:
        runs.setdefault(run.position, []).append(run)
    for index, step in enumerate(found.plan.steps):
        tried = runs.get(index + 1, [])
        if step.dry_run and not found.plan.refused and index + 1 < found.workflow.position:
            steps.append(_ok(found, index, step, {"dryRun": True}))
        elif tried and tried[-1].outcome == "succeeded":
            steps.append(_ok(found, index, step, _told(tried)))
    return steps


def _told(tried: Sequence[StepRun]) -> dict[str, int | None]:
    """What is told of a step's attempts: what it printed is in its log, and nowhere else."""
    last = tried[-1]
    return {
        "exitCode": last.exit_code,
        "attempts": last.attempt,
        "durationMs": _duration(tried[0].started_at, last.finished_at),
    }


def _ok(found: Found, index: int, step: PlannedStep, result: object) -> StepOk:
    resolved: Resolved = {
        "call": step.name,
        "method": "run",
        "target": found.project_name,
        "runtimeId": found.project_id,
        "ref": step.ref,
        "handleId": None if step.ref is None else _binding_id(found.workflow, step.ref),
        "contextId": None,
        "pageId": None,
    }
    told: StepOk = {
        "call": step.name,
        "index": index,
        "ok": True,
        "resolved": resolved,
        "result": result,
    }
    if step.bind is not None:
        binding: Binding = {
            "alias": step.bind,
            "id": _binding_id(found.workflow, step.bind),
            "type": "handle",
        }
        told["binding"] = binding
    return told


def _failed(failure: WorkflowFailure | None, found: Found) -> list[StepFailed]:
    position = found.workflow.position
    if failure is None or found.plan.refused or position > len(found.plan.steps):
        return []
    return [step_failed(failure, found)]


def _failure(failure: WorkflowFailure | None) -> Failure | None:
    if failure is None:
        return None
    details: dict[str, str | int] = {}
    if failure.step is not None:
        details["step"] = failure.step
    if failure.code is FailureCode.STEP_FAILED and failure.exit_code is not None:
        details["exitCode"] = failure.exit_code
    return {"code": failure.code.value, "message": failure.message, "details": details}


# -- parts -----------------------------------------------------------------------------------------


def _binding_id(workflow: Workflow, alias: str) -> str:
    return str(uuid5(UUID(workflow.id), f"binding/{alias}"))


def _duration(begun: int | None, ended: int | None) -> int | None:
    # Clocks may be set back meanwhile.
    return None if begun is None or ended is None else max(0, ended - begun)
