"""What a project offers to be called: the steps of its workflow file, or what is wrong with that."""

from __future__ import annotations

from pathlib import Path

from bilt_mcp.state import InvalidWorkflowFile, NoWorkflowConfigured, Offer, OfferedCall

from .workflow_file import FILE_NAME, load

MOST_TOLD = 5


def offer(root: Path) -> Offer:
    """What can be called in the folder `root` now. Reads one file."""
    if not root.is_dir():
        return Offer("missing", "The project's folder is not there.")
    try:
        file = load(root)
    except NoWorkflowConfigured:
        return Offer("missing", f"There is no {FILE_NAME} in the project's folder.")
    except InvalidWorkflowFile as error:
        # Not its path: who may call steps need not know where they are.
        told = "; ".join(f"{p.field}: {p.message}" for p in error.problems[:MOST_TOLD])
        return Offer("invalid", f"{FILE_NAME} cannot be used as it stands: {told}")
    steps = file.steps
    calls = [
        OfferedCall(step.name, step.deploy, step.confirm is not None, step.timeout)
        for step in steps
    ]
    return Offer("ready", calls=calls)
