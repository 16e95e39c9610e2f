"""What an agent is told in words: what stands, and which call comes next."""

from __future__ import annotations

from bilt_mcp.state import FailureCode, Session

_AFTER = {
    FailureCode.STEP_FAILED: "Read its last output with bilt_get_messages, correct the cause, then start again with "
    "bilt_send_message.",
    FailureCode.TIMED_OUT: "See with bilt_get_messages what it was doing. Correct what hangs, or raise `timeout` in "
    "bilt.toml if it was only slow; then start again with bilt_send_message.",
    FailureCode.WORKER_LOST: "The cause lies outside the build, and what the step had changed by then may be half "
    "done: look with bilt_get_messages, then start again with bilt_send_message, after asking the user if it deploys.",
    FailureCode.INTERRUPTED: "The build itself did nothing wrong: see with bilt_get_messages how far it came, then "
    "start again with bilt_send_message, after asking the user if it deploys.",
    FailureCode.INVALID_WORKFLOW: "Correct bilt.toml, then start again with bilt_send_message.",
}
"""Which call comes next, for each way to fail."""


def next_call(session: Session, terminal: str) -> str:
    """One sentence or two: what stands, and which call comes next."""
    workflow = session.workflow
    if workflow is None:
        return "Nothing has run yet. Start a workflow with bilt_send_message."
    wait = (
        f"Wait for the next change with bilt_get_session(session_id, wait_seconds=45, "
        f"after_revision={session.revision})"
    )
    gate = session.pending_action
    if gate is not None:
        return (
            f"Waiting for a person to confirm step {gate.step}: bilt_confirm_action has the user asked, or they run "
            f"`{terminal} confirm {session.id}` in a terminal. You cannot approve it. {wait}, or stop with "
            "bilt_cancel_workflow."
        )
    if workflow.failure is not None:
        return f"{workflow.failure.message} {_AFTER[workflow.failure.code]}"
    return {
        "pending": f"Accepted and durable; it starts when a worker is free. {wait}.",
        "running": f"Running. {wait}, read output with bilt_get_messages, or stop with bilt_cancel_workflow.",
        "paused": "Paused by request. Go on with bilt_resume_workflow, or stop with bilt_cancel_workflow.",
        "cancelling": "Being cancelled; processes are being killed. bilt_cancel_workflow waits for the receipt.",
        "cancelled": "Cancelled; nothing of it is alive. Start again with bilt_send_message.",
        "completed": "Completed. Read the messages with bilt_get_messages, or start another with bilt_send_message.",
        "failed": "Failed. Read the last output with bilt_get_messages, then start again with bilt_send_message.",
    }[workflow.status.value]
