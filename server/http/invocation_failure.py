"""Why a step of an invocation failed, for its caller: a code, a diagnostic, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from bilt_mcp.state import Failure, FailureCode, Invocation, Refusal
from bilt_mcp.tools import uris

from .invocation_models import Diagnostic, ErrorCode, Fix, StepFailed

AGAIN = "Correct the cause, then send the request again with another idempotencyKey."


@dataclass(frozen=True)
class _Kind:
    id: str
    code: ErrorCode
    hint: str
    fixes: tuple[str, ...] = ()


_KINDS: Mapping[FailureCode, _Kind] = {
    FailureCode.STEP_FAILED: _Kind("exit-code", "CAPABILITY_NOT_AVAILABLE", AGAIN),
    FailureCode.TIMED_OUT: _Kind(
        "timed-out",
        "TIMEOUT",
        "Correct what hangs, or give it more time.",
        ("Raise options.timeoutMs, or `timeout` in bilt.toml, if it was only slow",),
    ),
    FailureCode.WORKER_LOST: _Kind(
        "worker-lost",
        "DRIVER_NOT_CONNECTED",
        "The cause lies outside the step, and what it had changed by then may be half done: look, then send the "
        "request again with another idempotencyKey.",
    ),
    FailureCode.INTERRUPTED: _Kind(
        "interrupted",
        "DRIVER_NOT_CONNECTED",
        "The step itself did nothing wrong. Send the request again with another idempotencyKey; if it deploys, look "
        "first how far it came.",
    ),
    FailureCode.INVALID_WORKFLOW: _Kind(
        "invalid-workflow", "CAPABILITY_NOT_AVAILABLE", "Correct bilt.toml. " + AGAIN
    ),
}


def step_refused(refusal: Refusal) -> StepFailed:
    """A step that could not be run as it was asked for."""
    return {
        "call": refusal.call,
        "index": refusal.index,
        "ok": False,
        "error": {
            "code": refusal.code.value,
            "message": refusal.message,
            "hint": "Nothing was run. Correct the request, and send it with another idempotencyKey.",
            "diagnostic": cast("Diagnostic", refusal.diagnostic),
        },
    }


def step_failed(failure: Failure, found: Invocation) -> StepFailed:
    """The step at which the workflow failed."""
    position = found.workflow.position
    name = found.plan.steps[position - 1].name
    kind = _KINDS[failure.code]
    run = found.last_run(position)
    fixes: list[Fix] = []
    if run is not None:
        log = uris.LogUri(found.workflow.id, name, attempt=run.attempt)
        fixes.append({"title": "Read what it printed: a resource over MCP", "example": str(log)})
    fixes.extend(Fix(title=title) for title in kind.fixes)
    diagnostic: Diagnostic = {
        "id": kind.id,
        "call": name,
        "category": "runtime",
        "code": kind.code,
        "fixes": fixes,
    }
    if failure.code is FailureCode.STEP_FAILED:
        diagnostic["expected"] = "exit code 0"
        diagnostic["received"] = _received(failure)
    return {
        "call": name,
        "index": position - 1,
        "ok": False,
        "error": {
            "code": kind.code,
            "message": failure.message,
            "hint": kind.hint,
            "diagnostic": diagnostic,
        },
    }


def _received(failure: Failure) -> str:
    if failure.exit_code is None:
        return "no exit code"
    return f"exit code {failure.exit_code}"
