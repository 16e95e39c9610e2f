"""Looking up what a caller names, always together with his account."""

from __future__ import annotations

from collections.abc import Sequence

from .driver import sqlite3
from .errors import ProjectNotFound, SessionNotFound, WorkflowNotFound
from .models import MessagePage, MessageQuery
from .sqlite_base import Row, one
from .sqlite_rows import NEWEST_MESSAGE, SESSION_QUERY, WORKFLOW_QUERY, message_of

_NO_SESSION = "No session with this id. Call bilt_get_session without session_id to get the project's session."


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
        raise SessionNotFound(_NO_SESSION)
    return row


def workflow_row(c: sqlite3.Connection, account: str, workflow_id: str) -> Row:
    """The account's workflow, as `WORKFLOW_QUERY` has it. Raises `WorkflowNotFound`."""
    row = one(c, WORKFLOW_QUERY, account=account, id=workflow_id)
    if row is None:
        raise WorkflowNotFound(
            "No workflow with this id. bilt_get_session names the session's newest."
        )
    return row


def message_page(
    c: sqlite3.Connection, account: str, session_id: str, query: MessageQuery
) -> MessagePage:
    """See `SessionStore.messages`."""
    session = one(
        c,
        "SELECT n FROM session WHERE id = :id AND account = :account",
        id=session_id,
        account=account,
    )
    if session is None:
        raise SessionNotFound(_NO_SESSION)
    values: dict[str, object] = {"session": session["n"]}
    filters: list[str] = []
    if query.workflow_id is not None:
        workflow = one(
            c,
            "SELECT n FROM workflow WHERE id = :id AND session = :session",
            id=query.workflow_id,
            session=session["n"],
        )
        if workflow is None:
            raise WorkflowNotFound(
                "No workflow with this id in this session. bilt_get_session names the newest; leave workflow_id out "
                "to read the messages of all."
            )
        filters.append("m.workflow = :workflow")
        values["workflow"] = workflow["n"]
    if query.variant is not None:
        filters.append("m.variant = :variant")
        values["variant"] = query.variant
    if query.text:
        filters.append("instr(casefold(m.content), :text) > 0")
        values["text"] = query.text.casefold()
    where = " AND ".join(["m.session = :session", *filters])
    newest = one(c, NEWEST_MESSAGE, session=session["n"])
    total = 0 if newest is None else newest["ordinal"]
    if filters:
        counted = one(c, f"SELECT count(*) AS total FROM message AS m WHERE {where}", **values)
        total = counted["total"] if counted else 0
    forward = query.after is not None
    if forward:
        where += " AND m.id > :after"
    rows: Sequence[Row] = c.execute(
        f"""SELECT m.*, w.id AS workflow_id FROM message AS m LEFT JOIN workflow AS w ON w.n = m.workflow
            WHERE {where} ORDER BY m.id {"ASC" if forward else "DESC"} LIMIT :limit OFFSET :offset""",
        {
            **values,
            "after": query.after,
            "limit": query.limit + 1,
            "offset": 0 if forward else query.offset,
        },
    ).fetchall()
    return MessagePage(
        messages=tuple(message_of(row) for row in rows[: query.limit]),
        total=total,
        has_more=len(rows) > query.limit,
        newest_id=newest["id"] if newest else 0,
    )
