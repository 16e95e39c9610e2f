"""Looking up what a caller names, always together with his account."""

from __future__ import annotations

from .access import limited_to
from .driver import sqlite3
from .errors import ProjectNotFound, SessionNotFound, WorkflowNotFound
from .sqlite_base import Row, one
from .sqlite_rows import SESSION_QUERY, WORKFLOW_QUERY

NO_SESSION = "No session with this id. Call bilt_get_session without session_id to get the project's session."
"""What a caller is told who names a session that is not his."""

NO_WORKFLOW = "No workflow with this id. bilt_get_session names the session's newest."
"""What a caller is told who names a workflow that is not his."""


def whose(account: str) -> dict[str, str | None]:
    """A caller's account, and the one project that he is limited to, as the statements of this store name them."""
    return {"account": str(account), "only": limited_to(account)}


def project_row(c: sqlite3.Connection, account: str, project_id: str) -> Row:
    """The account's project. Raises `ProjectNotFound`."""
    row = one(
        c,
        "SELECT * FROM project WHERE account = :account AND id = :id AND (:only IS NULL OR id = :only)",
        **whose(account),
        id=project_id,
    )
    if row is None:
        raise ProjectNotFound(
            "No project with this id. Call bilt_get_session without arguments for the project of this server."
        )
    return row


def session_row(c: sqlite3.Connection, account: str, session_id: str) -> Row:
    """The account's session, as `SESSION_QUERY` has it. Raises `SessionNotFound`."""
    row = one(c, f"{SESSION_QUERY} s.id = :id", **whose(account), id=session_id)
    if row is None:
        raise SessionNotFound(NO_SESSION)
    return row


def workflow_row(c: sqlite3.Connection, account: str, workflow_id: str) -> Row:
    """The account's workflow, as `WORKFLOW_QUERY` has it. Raises `WorkflowNotFound`."""
    row = one(c, WORKFLOW_QUERY, **whose(account), id=workflow_id)
    if row is None:
        raise WorkflowNotFound(NO_WORKFLOW)
    return row
