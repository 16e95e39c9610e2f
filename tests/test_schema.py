"""The schema of the SQLite store refuses rows that cannot be, whoever writes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from bilt_mcp.state.migrate import migrate

Row = Mapping[str, str | int | None]

PROJECT: Row = {
    "id": "p1",
    "account": "me",
    "root": "/",
    "name": "p",
    "created_at": 0,
    "updated_at": 0,
}
SESSION: Row = {"id": "s1", "account": "me", "project": 1, "created_at": 0, "updated_at": 0}
WORKFLOW: Row = {
    "id": "w1",
    "session": 1,
    "project": 1,
    "status": "pending",
    "message": "go",
    "plan": "{}",
    "total_steps": 2,
    "created_at": 0,
}
RUNNING: Row = {**WORKFLOW, "status": "running", "started_at": 1, "epoch": 1}
CANCELLING: Row = {**RUNNING, "status": "cancelling", "cancel_requested_at": 2}
CANCELLED: Row = {**WORKFLOW, "status": "cancelled", "cancel_requested_at": 2, "finished_at": 3}
COMPLETED: Row = {**RUNNING, "status": "completed", "finished_at": 3}
FAILED: Row = {**COMPLETED, "status": "failed", "failure": "{}"}
STEP: Row = {
    "workflow": 1,
    "position": 1,
    "attempt": 1,
    "name": "build",
    "epoch": 1,
    "started_at": 1,
}
GATE: Row = {
    "id": "g1",
    "workflow": 1,
    "position": 1,
    "step": "deploy",
    "message": "Deploy it?",
    "created_at": 1,
}
MESSAGE: Row = {
    "session": 1,
    "ordinal": 1,
    "side": "ai",
    "variant": "log",
    "content": "line",
    "created_at": 1,
}
KEY: Row = {"session": 1, "key": "k", "digest": "d", "workflow": 1}


def status_of(row: Row) -> str:
    return str(row["status"])


class Database:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def insert(self, table: str, row: Row, **other: str | int | None) -> None:
        values = {**row, **other}
        marks = ", ".join(f":{name}" for name in values)
        self.connection.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", values
        )

    def execute(self, sql: str) -> None:
        self.connection.execute(sql)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """With a project, a session and a worker of epoch 1."""
    with closing(sqlite3.connect(tmp_path / "bilt.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection, "test")
        made = Database(connection)
        made.insert("project", PROJECT)
        made.insert("session", SESSION)
        made.execute("UPDATE worker SET epoch = 1, leaving = 0")
        yield made


@pytest.mark.parametrize(
    "row",
    [WORKFLOW, RUNNING, CANCELLING, CANCELLED, COMPLETED, FAILED],
    ids=status_of,
)
def test_possible_rows_are_accepted(database: Database, row: Row) -> None:
    database.insert("workflow", row)


IMPOSSIBLE: dict[str, tuple[Row, Row]] = {
    "an unknown status": (WORKFLOW, {"status": "idle"}),
    "no steps": (WORKFLOW, {"total_steps": 0}),
    "a position before the first step": (WORKFLOW, {"position": 0}),
    "a position after the end": (WORKFLOW, {"position": 4}),
    "a percentage below 0": (RUNNING, {"step_percent": -1}),
    "a percentage above 100": (RUNNING, {"step_percent": 101}),
    "finished but pending": (WORKFLOW, {"finished_at": 3}),
    "finished but running": (RUNNING, {"finished_at": 3}),
    "finished but cancelling": (CANCELLING, {"finished_at": 3}),
    "completed but not finished": (COMPLETED, {"finished_at": None}),
    "cancelled but not finished": (CANCELLED, {"finished_at": None}),
    "failed but not finished": (FAILED, {"finished_at": None}),
    "failed without a failure": (FAILED, {"failure": None}),
    "completed with a failure": (COMPLETED, {"failure": "{}"}),
    "running with a failure": (RUNNING, {"failure": "{}"}),
    "cancelled with a failure": (CANCELLED, {"failure": "{}"}),
    "cancelling but nobody asked": (CANCELLING, {"cancel_requested_at": None}),
    "cancelled but nobody asked": (CANCELLED, {"cancel_requested_at": None}),
    "running but never started": (RUNNING, {"started_at": None}),
    "cancelling but never started": (CANCELLING, {"started_at": None}),
    "completed but never started": (COMPLETED, {"started_at": None}),
    "failed but never started": (FAILED, {"started_at": None}),
    "pending but held": (WORKFLOW, {"epoch": 1}),
    "paused but held": (RUNNING, {"status": "paused"}),
    "of no session": (WORKFLOW, {"session": 7}),
    "of no project": (WORKFLOW, {"project": 7}),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_no_workflow_can_be(database: Database, what: str) -> None:
    row, change = IMPOSSIBLE[what]
    with pytest.raises(sqlite3.IntegrityError, match=r"CHECK|FOREIGN KEY"):
        database.insert("workflow", {**row, **change})


def test_a_session_has_one_workflow_at_most_that_is_not_final(database: Database) -> None:
    database.insert("workflow", COMPLETED, id="w0")
    database.insert("workflow", RUNNING)
    with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE.*session"):
        database.insert("workflow", WORKFLOW, id="w2")
    database.insert("session", SESSION, id="s2")
    database.insert("workflow", WORKFLOW, id="w2", session=2)


@pytest.mark.parametrize("row", [CANCELLED, COMPLETED, FAILED], ids=status_of)
@pytest.mark.parametrize(
    "change",
    ["status = 'running'", "status = status", "finished_at = 9", "stopped = '{}'", "message = 'x'"],
)
def test_final_is_final(database: Database, row: Row, change: str) -> None:
    database.insert("workflow", row)
    with pytest.raises(sqlite3.IntegrityError, match=r"final is final|no such transition"):
        database.execute(f"UPDATE workflow SET {change}")


@pytest.mark.parametrize("change", ["9", "NULL"])
def test_decided_is_decided(database: Database, change: str) -> None:
    database.insert("workflow", CANCELLING)
    with pytest.raises(sqlite3.IntegrityError, match="a cancel is decided once"):
        database.execute(f"UPDATE workflow SET cancel_requested_at = {change}")


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (WORKFLOW, {}),
        (CANCELLING, {}),
        (CANCELLED, {}),
        (COMPLETED, {}),
        (FAILED, {}),
        (RUNNING, {"epoch": None}),
        (RUNNING, {"epoch": 2}),
        (RUNNING, {"position": 2}),
    ],
)
def test_no_step_starts_unless_its_workflow_runs_there_under_its_epoch(
    database: Database, row: Row, change: Row
) -> None:
    database.insert("workflow", {**row, **change})
    with pytest.raises(sqlite3.IntegrityError, match="no step outside a running workflow"):
        database.insert("step_run", STEP)


def test_no_deploy_starts_outside_the_current_epoch(database: Database) -> None:
    database.insert("workflow", RUNNING)
    database.execute("UPDATE worker SET epoch = 2")
    with pytest.raises(sqlite3.IntegrityError, match="no deploy step outside the current epoch"):
        database.insert("step_run", STEP, deploy=1)
    database.execute("UPDATE worker SET epoch = 1")
    database.insert("step_run", STEP, deploy=1)


@pytest.mark.parametrize(
    "change",
    [
        {"finished_at": 5},
        {"outcome": "succeeded"},
        {"finished_at": 5, "outcome": "done"},
        {"deploy": 2},
    ],
)
def test_no_step_is_half_ended_or_ends_in_no_known_way(database: Database, change: Row) -> None:
    database.insert("workflow", RUNNING)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        database.insert("step_run", {**STEP, **change})


def test_an_attempt_is_made_once(database: Database) -> None:
    database.insert("workflow", RUNNING)
    database.insert("step_run", STEP)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        database.insert("step_run", STEP)
    database.insert("step_run", STEP, attempt=2)


def test_there_is_one_worker(database: Database) -> None:
    for one in (1, 2):
        with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE|CHECK"):
            database.insert("worker", {"one": one, "epoch": 1})
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        database.execute("UPDATE worker SET leaving = 2")
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        database.execute("UPDATE worker SET epoch = NULL")


def test_a_workflow_has_one_open_gate_at_most(database: Database) -> None:
    database.insert("workflow", RUNNING)
    database.insert("gate", GATE, id="g0", answer="confirmed", answered_at=2)
    database.insert("gate", GATE)
    with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE.*workflow"):
        database.insert("gate", GATE, id="g2")


@pytest.mark.parametrize(
    "change", [{"answer": "confirmed"}, {"answered_at": 2}, {"answer": "maybe", "answered_at": 2}]
)
def test_no_gate_is_half_answered_or_answered_in_no_known_way(
    database: Database, change: Row
) -> None:
    database.insert("workflow", RUNNING)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        database.insert("gate", {**GATE, **change})


@pytest.mark.parametrize("change", [{"side": "system"}, {"variant": "debug"}, {"session": 7}])
def test_messages_are_of_a_known_kind_and_session(database: Database, change: Row) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=r"CHECK|FOREIGN KEY"):
        database.insert("message", {**MESSAGE, **change})


def test_an_idempotency_key_has_one_answer_in_a_session(database: Database) -> None:
    database.insert("workflow", RUNNING)
    database.insert("idempotency", KEY)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        database.insert("idempotency", KEY)


def test_projects_are_public_or_private_and_one_for_each_account_and_folder(
    database: Database,
) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        database.insert("project", PROJECT, id="p2", root="/2", visibility="secret")
    with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE.*account"):
        database.insert("project", PROJECT, id="p2")
    database.insert("project", PROJECT, id="p2", account="somebody else")


@pytest.mark.parametrize(
    ("table", "row"),
    [("project", PROJECT), ("session", SESSION), ("workflow", WORKFLOW), ("gate", GATE)],
)
def test_ids_are_unique(database: Database, table: str, row: Row) -> None:
    other: dict[str, Row] = {
        "project": {"root": "/2"},
        "workflow": {"session": 2},
        "gate": {"answer": "confirmed", "answered_at": 2},
    }
    if table not in ("project", "session"):
        database.insert("session", SESSION, id="s2")
        database.insert("workflow", WORKFLOW)
    if table == "gate":
        database.insert("gate", row)
    with pytest.raises(sqlite3.IntegrityError, match=rf"UNIQUE.*{table}\.id"):
        database.insert(table, {**row, **other.get(table, {})})


def test_message_ids_rise_although_the_oldest_are_deleted(database: Database) -> None:
    for _ in range(3):
        database.insert("message", MESSAGE)
    database.execute("DELETE FROM message WHERE id < 3")
    database.insert("message", MESSAGE)
    ids = [row[0] for row in database.connection.execute("SELECT id FROM message ORDER BY id")]
    assert ids == [3, 4]


@pytest.mark.parametrize("table", ["workflow", "message", "session", "step_run"])
def test_columns_keep_their_types(database: Database, table: str) -> None:
    database.insert("workflow", RUNNING)
    rows: dict[str, Row] = {
        "workflow": {**WORKFLOW, "id": "w2", "session": 2},
        "message": MESSAGE,
        "session": {**SESSION, "id": "s3"},
        "step_run": STEP,
    }
    database.insert("session", SESSION, id="s2")
    column = "started_at" if table == "step_run" else "created_at"
    with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT value"):
        database.insert(table, {**rows[table], column: "yesterday"})
