"""What a chat is told of a workflow, in our own words: what a build has said is told as such, by the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bilt_mcp.state import (
    DeployState,
    Invocation,
    PendingAction,
    PlannedStep,
    Status,
    StepRun,
    Workflow,
    iso,
)
from bilt_mcp.tools import consequence

from .chat_models import ChatAction, StepOutcome, StepStatus

_DEPLOY = {
    DeployState.NOT_STARTED: "Nothing was deployed.",
    DeployState.INTERRUPTED: "A deploy step was interrupted: look what it has done.",
    DeployState.DONE: "A deploy step had been done.",
}


@dataclass(frozen=True)
class StepReport:
    """How far one planned step is."""

    name: str
    status: StepStatus
    asks: bool
    """Whether a person has to be asked before it."""
    exit_code: int | None = None


@dataclass(frozen=True)
class Report:
    """How far a workflow is, of one moment."""

    workflow: Workflow
    steps: Sequence[StepReport]
    """In the order of its plan."""
    gate: PendingAction | None
    """Where it waits for a person."""


def report_of(found: Invocation) -> Report:
    """How far a workflow is."""
    gate = found.pending_action
    steps = [
        _step(found, position, step, found.last_run(position), gate)
        for position, step in enumerate(found.plan.steps, 1)
    ]
    return Report(found.workflow, steps, gate)


def _step(
    found: Invocation,
    position: int,
    step: PlannedStep,
    run: StepRun | None,
    gate: PendingAction | None,
) -> StepReport:
    asked = gate is not None and gate.position == position
    status = _status(found.workflow, position, run, asked)
    code = None if run is None else run.exit_code
    return StepReport(step.name, status, step.confirm is not None, code)


def _status(workflow: Workflow, position: int, run: StepRun | None, asked: bool) -> StepStatus:
    if run is not None and run.outcome == "succeeded":
        return "completed"
    if run is None and position < workflow.position:
        return "skipped"
    if workflow.status is Status.FAILED:
        return "failed" if position == workflow.position else "not_run"
    if workflow.final:
        return "cancelled"
    if asked:
        return "waiting"
    return "pending" if run is None else "running"


def response(report: Report, *, stopping: bool = False) -> str:
    """What became of a workflow, and what a person can do next. `stopping`: the server is."""
    workflow, gate = report.workflow, report.gate
    match workflow.status:
        case Status.COMPLETED:
            return _completed(report.steps)
        case Status.FAILED:
            failure = workflow.failure
            why = "" if failure is None else f" {failure.message}"
            return f"Failed.{why} {_DEPLOY[workflow.deploy]}"
        case Status.CANCELLED:
            return f"Cancelled; nothing of it is alive. {_DEPLOY[workflow.deploy]}"
        case Status.PAUSED if gate is not None:
            return _asks(workflow, gate)
        case Status.PAUSED:
            return f"Paused before step {workflow.step}, as was asked for."
        case _:
            told = f"Not over yet: it is {workflow.status} ({_where(workflow)})."
            why = "The server is stopping; the workflow goes on. " if stopping else ""
            return f"{why}{told} Follow it on /chat/stream."


def actions(steps: Sequence[StepReport]) -> list[ChatAction]:
    """The planned steps as the chat lists them."""
    return [
        ChatAction(name=step.name, status=step.status, requires_confirmation=step.asks)
        for step in steps
    ]


def results(steps: Sequence[StepReport]) -> dict[str, StepOutcome]:
    """How each planned step has gone."""
    return {step.name: StepOutcome(status=step.status, exit_code=step.exit_code) for step in steps}


def _completed(steps: Sequence[StepReport]) -> str:
    done = [step.name for step in steps if step.status == "completed"]
    skipped = [step.name for step in steps if step.status == "skipped"]
    told = f"Done: {', '.join(done)} succeeded." if done else "Done."
    return f"{told} Left out: {', '.join(skipped)}." if skipped else told


def _asks(workflow: Workflow, gate: PendingAction) -> str:
    kind = "Deploy step" if gate.deploy else "Step"
    told = (
        f"{kind} {gate.step} ({gate.position} of {workflow.total_steps}) waits for your answer. "
        f"Yes runs it. No {consequence(gate)}."
    )
    if gate.expires_at is not None:
        told += f" Without an answer by {iso(gate.expires_at)} it counts as no."
    return told


def _where(workflow: Workflow) -> str:
    step = min(workflow.position, workflow.total_steps)
    named = "" if workflow.step is None else f", {workflow.step}"
    return f"step {step} of {workflow.total_steps}{named}"
