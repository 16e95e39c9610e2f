"""Looking up what a caller names, always together with his account."""

from __future__ import annotations

from .driver import sqlite3
from .errors import ProjectNotFound, SessionNotFound, WorkflowNotFound
from .sqlite_base import Row, one
from .sqlite_rows import SESSION_QUERY, WORKFLOW_QUERY

NO_SESSION = "No session with this id. Call bilt_get_session without session_id to get the project's session."
"""What a caller is told who names a session that is not his."""


def project_row(c: sqlite3.Connection, account: str, project_id: str) -> Row:
    """The account's project. Raises `ProjectNotFound`."""
    row = one(
        c,
        "SELECT * FROM project WHERE account = :account AND id = :id",
        account=account,
        id=project_id,
    )
    if row is None:
        raise ProjectNotFound(
            "No project with this id. Call bilt_get_session without arguments for the project of this server."
        )
    return row


def session_row(c: sqlite3.Connection, account: str, session_id: str) -> Row:
    """The account's session, as `SESSION_QUERY` has it. Raises `SessionNotFound`."""
    row = one(c, f"{SESSION_QUERY} s.id = :id", account=account, id=session_id)
    if row is None:
        raise SessionNotFound(NO_SESSION)
    return row


def workflow_row(c: sqlite3.Connection, account: str, workflow_id: str) -> Row:
    """The account's workflow, as `WORKFLOW_QUERY` has it. Raises `WorkflowNotFound`."""
    row = one(c, WORKFLOW_QUERY, account=account, id=workflow_id)
    if row is None:
        raise WorkflowNotFound(
            "No workflow with this id. bilt_get_session names the session's newest."
        )
    return row
