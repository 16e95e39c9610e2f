"""Rows of the SQLite store as values, and the queries that read them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, Literal

from .calls import Refusal, RefusalCode
from .clock import Clock, boot_id
from .driver import sqlite3
from .models import (
    AuditEntry,
    Caller,
    DeployState,
    Failure,
    FailureCode,
    Message,
    PendingAction,
    Plan,
    PlannedStep,
    ProcessRecord,
    Project,
    Session,
    Stopped,
    Workflow,
)
from .transitions import Status

Row = sqlite3.Row

DEPLOY_STATE = """
    CASE
        WHEN NOT EXISTS (
            SELECT 1 FROM step_run AS r
            WHERE r.workflow = w.n AND r.deploy = 1 AND r.outcome IS NOT 'not_started')
            THEN 'not_started'
        WHEN EXISTS (
            SELECT 1 FROM step_run AS r
            WHERE r.workflow = w.n AND r.deploy = 1
              AND (r.outcome IS NULL OR r.outcome NOT IN ('succeeded', 'not_started'))
              AND NOT EXISTS (
                SELECT 1 FROM step_run AS later
                WHERE later.workflow = w.n AND later.position = r.position AND later.attempt > r.attempt
                  AND later.outcome = 'succeeded'))
            THEN 'interrupted'
        ELSE 'done'
    END"""
"""What is known of workflow `w`'s deploy steps: an attempt that did not succeed counts until one did."""

WORKFLOW_COLUMNS = f"""
    w.id AS w_id, w.status, w.total_steps, w.position, w.step, w.step_percent, w.step_message,
    w.created_at AS w_created_at, w.started_at, w.finished_at, w.cancel_requested_at, w.cancel_reason,
    w.pause_requested, w.failure, w.stopped, w.boot_id, w.started_mono, w.output_mono,
    CASE WHEN w.n IS NOT NULL THEN {DEPLOY_STATE} END AS deploy"""

MOST_KNOWN_CHARS = 16_384
"""A longer plan is not remembered by those who have read it."""
_OF_INVOCATIONS = frozenset({"dry_run", "bind", "ref", "request", "refused"})

NOT_FINAL = "status NOT IN ('cancelled', 'completed', 'failed')"
"""In the words of the index `workflow_active`: a look for what is not over that lacks them reads every workflow."""

NEWEST_MESSAGE = "SELECT id FROM message WHERE session = :session ORDER BY id DESC LIMIT 1"

NEWEST_NOW = "(SELECT max(id) FROM message WHERE session = {session})"
"""The id of a session's newest message: after it comes what happens now."""

NTH = """coalesce(m.nth, (
    SELECT count(*) FROM message AS o WHERE o.session = m.session AND o.variant = m.variant AND o.id <= m.id))"""
"""The number of message `m` among its session's of the same variant, also where older code wrote it without."""

SESSION_QUERY = f"""
    SELECT s.n AS s_n, s.id AS s_id, s.account, s.revision, s.created_at AS s_created_at, s.updated_at AS s_updated_at,
           p.id AS p_id, w.n AS w_n, {WORKFLOW_COLUMNS},
           g.id AS g_id, g.step AS g_step, g.message AS g_message, g.expires_at AS g_expires_at,
           CASE WHEN g.id IS NOT NULL THEN json_extract(w.plan, '$.steps[' || (g.position - 1) || ']') END AS g_plan
    FROM session AS s
    JOIN project AS p ON p.n = s.project
    LEFT JOIN workflow AS w ON w.n = (SELECT max(n) FROM workflow WHERE session = s.n)
    LEFT JOIN gate AS g ON g.workflow = w.n AND g.answer IS NULL
    WHERE s.account = :account AND (:only IS NULL OR p.id = :only) AND """


WORKFLOW_QUERY = f"""
    SELECT s.id AS s_id, {WORKFLOW_COLUMNS}
    FROM workflow AS w JOIN session AS s ON s.n = w.session
    WHERE s.account = :account AND w.id = :id
      AND (:only IS NULL OR s.project = (SELECT n FROM project WHERE id = :only))"""


def quoted(statuses: Collection[Status]) -> str:
    """Statuses as the inside of an SQL `IN (...)`; they are our own constants, never input."""
    return ", ".join(f"'{status.value}'" for status in Status if status in statuses)


def named(row: Row) -> Mapping[str, Any]:
    """A row whose columns are found at once: a `Row` compares their names one by one."""
    return dict(zip(row.keys(), row, strict=True))


def session_of(row: Row, clock: Clock) -> Session:
    """A row of `SESSION_QUERY`."""
    found = named(row)
    gate = None
    if found["g_id"] is not None:
        planned = json.loads(found["g_plan"])
        gate = gate_of(found, planned["deploy"], planned["on_decline"])
    return Session(
        id=found["s_id"],
        project_id=found["p_id"],
        revision=found["revision"],
        created_at=found["s_created_at"],
        updated_at=found["s_updated_at"],
        workflow=None if found["w_id"] is None else workflow_of(found, clock),
        pending_action=gate,
    )


def gate_of(
    found: Mapping[str, Any], deploy: bool, on_decline: Literal["cancel", "skip"]
) -> PendingAction:
    """The gate in a row whose `g_id` is one; the rest is what its step says."""
    return PendingAction(
        action_id=found["g_id"],
        step=found["g_step"],
        message=found["g_message"],
        expires_at=found["g_expires_at"],
        position=found["position"],
        deploy=deploy,
        on_decline=on_decline,
    )


def workflow_of(row: Row | Mapping[str, Any], clock: Clock) -> Workflow:
    """The workflow in a row with `WORKFLOW_COLUMNS` and `s_id`."""
    found = named(row) if isinstance(row, Row) else row
    status = Status(found["status"])
    elapsed = quiet = None
    if (
        status is Status.RUNNING
        and found["started_mono"] is not None
        and found["boot_id"] == boot_id()
    ):
        now = clock.monotonic()
        elapsed = max(0, now - found["started_mono"]) / 1000
        quiet = max(0, now - found["output_mono"]) / 1000
    return Workflow(
        id=found["w_id"],
        session_id=found["s_id"],
        status=status,
        total_steps=found["total_steps"],
        position=found["position"],
        step=found["step"],
        step_percent=found["step_percent"],
        step_message=found["step_message"],
        created_at=found["w_created_at"],
        started_at=found["started_at"],
        finished_at=found["finished_at"],
        cancel_requested_at=found["cancel_requested_at"],
        cancel_reason=found["cancel_reason"],
        pause_requested=bool(found["pause_requested"]),
        failure=failure_of(found["failure"]),
        stopped=stopped_of(found["stopped"]),
        deploy=DeployState(found["deploy"]),
        elapsed_seconds=elapsed,
        quiet_seconds=quiet,
    )


def project_of(row: Row) -> Project:
    """A row of `project`."""
    return Project(
        id=row["id"],
        account=row["account"],
        root=row["root"],
        name=row["name"],
        description=row["description"],
        visibility=row["visibility"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def audit_of(row: Row) -> AuditEntry:
    """A row of `audit` with its workflow's id as `workflow_id`."""
    return AuditEntry(
        at=row["at"],
        action=row["action"],
        caller=Caller(row["client"], row["surface"], row["principal"]),
        reason=row["reason"],
        workflow_id=row["workflow_id"],
    )


def message_of(row: Row) -> Message:
    """A row of `message` with its workflow's id as `workflow_id`."""
    return Message(
        id=row["id"],
        side=row["side"],
        variant=row["variant"],
        content=row["content"],
        workflow_id=row["workflow_id"],
        step=row["step"],
        created_at=row["created_at"],
    )


def plan_text(plan: Plan) -> str:
    """A plan as it is kept; what only invocations have is left out of others, as it always was."""
    kept = asdict(replace(plan, request=None))  # it would be copied piece by piece
    kept["request"] = plan.request
    for part in (kept, *kept["steps"]):
        for name in _OF_INVOCATIONS & part.keys():
            if part[name] in (None, False, ()):
                del part[name]
    text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair: no database takes it, but its escape is ASCII.
        return json.dumps(kept, separators=(",", ":"))
    return text


def plan_of(text: str) -> Plan:
    """The plan that `plan_text` kept. It is not to be changed: others may have got the same one."""
    return _known_plan(text) if len(text) <= MOST_KNOWN_CHARS else _plan_of(text)


def _plan_of(text: str) -> Plan:
    kept: dict[str, Any] = json.loads(text)
    kept["steps"] = tuple(PlannedStep(**step) for step in kept["steps"])
    if "refused" in kept:
        kept["refused"] = tuple(map(_refusal_of, kept["refused"]))
    return Plan(**kept)


_known_plan = lru_cache(maxsize=256)(_plan_of)


def _refusal_of(kept: dict[str, Any]) -> Refusal:
    kept["code"] = RefusalCode(kept["code"])
    return Refusal(**kept)


def failure_text(failure: Failure) -> str:
    """A failure as it is kept."""
    return json.dumps(asdict(failure), ensure_ascii=False)


def failure_of(text: str | None) -> Failure | None:
    """The failure that `failure_text` kept."""
    if text is None:
        return None
    kept: dict[str, Any] = json.loads(text)
    kept["code"] = FailureCode(kept["code"])
    return Failure(**kept)


def stopped_text(stopped: Stopped) -> str:
    """A receipt as it is kept."""
    return json.dumps(asdict(stopped), ensure_ascii=False)


def stopped_of(text: str | None) -> Stopped | None:
    """The receipt that `stopped_text` kept."""
    if text is None:
        return None
    kept: dict[str, Any] = json.loads(text)
    kept["deploy"] = DeployState(kept["deploy"])
    return Stopped(**kept)


def process_of(boot: str | None, pid: int | None, ticks: int | None) -> ProcessRecord | None:
    """A recorded process, or None when it was not recorded."""
    if boot is None or pid is None or ticks is None:
        return None
    return ProcessRecord(boot, pid, ticks)
