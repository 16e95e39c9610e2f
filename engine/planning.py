"""From what stands in `bilt.toml` to the plan that a workflow keeps."""

from __future__ import annotations

from collections.abc import Sequence

from bilt_mcp.state import Plan, PlannedStep

from .workflow_file import WorkflowFile
from .workflow_step import Step


def planned(
    step: Step, *, dry_run: bool = False, bind: str | None = None, ref: str | None = None
) -> PlannedStep:
    """A step as it stands now; what a caller of it said beside."""
    return PlannedStep(
        name=step.name,
        spec=step.model_dump(mode="json"),
        deploy=step.deploy,
        confirm=step.confirm,
        on_decline=step.on_decline,
        confirm_timeout=step.confirm_timeout,
        dry_run=dry_run,
        bind=bind,
        ref=ref,
    )


def make_plan(file: WorkflowFile, steps: Sequence[PlannedStep]) -> Plan:
    """A plan of these steps, with the limits of the file that they are from."""
    return Plan(
        steps=tuple(steps),
        timeout=file.limits.timeout,
        max_parallel=file.limits.max_parallel,
        limits={"log_bytes": file.limits.log_bytes, "max_messages": file.limits.max_messages},
    )
