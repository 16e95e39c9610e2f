"""What a step that a caller named gets of the call, and of the earlier step that it refers to."""

from __future__ import annotations

import anyio.to_thread

from bilt_mcp.state import Claim

from .called_steps import ARGS
from .run_folder import RunFolder


def call_variables(claim: Claim, folder: RunFolder) -> dict[str, str]:
    """The variables of the call at the claim's position; none for a step that no caller named."""
    if claim.plan.request is None:
        return {}
    found: dict[str, str] = {}
    given = folder.args().get(claim.position)
    if given is not None:
        found[ARGS] = given
    ref = claim.plan.steps[claim.position - 1].ref
    if ref is not None:
        position = next(at for at, step in enumerate(claim.plan.steps, 1) if step.bind == ref)
        # Only of a step that succeeded is the output kept: one that was left out has none, and no exit code.
        succeeded = folder.output(position).exists()
        if not succeeded:
            folder.output(position).touch(mode=0o600)
        found["BILT_REF"] = ref
        found["BILT_REF_CALL"] = claim.plan.steps[position - 1].name
        found["BILT_REF_OUTPUT"] = str(folder.output(position))
        found["BILT_REF_EXIT_CODE"] = "0" if succeeded else ""
    return found


async def keep_for_others(claim: Claim, folder: RunFolder, attempt: int) -> None:
    """Keep what the step at the claim's position printed in this attempt, if a later step refers to it."""
    bind = claim.plan.steps[claim.position - 1].bind
    if bind is not None and any(step.ref == bind for step in claim.plan.steps[claim.position :]):
        await anyio.to_thread.run_sync(folder.keep_output, claim.position, attempt)
