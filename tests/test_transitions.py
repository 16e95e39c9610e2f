"""The transition table: what CONTRACT section 1 says, what is derived, and what the schema enforces."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pytest

from bilt_mcp.state import (
    ACTIVE,
    CANCELLABLE,
    FINAL,
    IDLE,
    TRANSITIONS,
    Event,
    Status,
    sources,
)
from bilt_mcp.state.migrate import migrate

CONTRACT = {
    ("pending", "claim", "running"),
    ("pending", "cancel", "cancelled"),
    ("running", "claim", "running"),
    ("running", "pause", "paused"),
    ("running", "complete", "completed"),
    ("running", "fail", "failed"),
    ("running", "cancel", "cancelling"),
    ("paused", "confirm", "running"),
    ("paused", "skip", "running"),
    ("paused", "resume", "running"),
    ("paused", "decline", "cancelled"),
    ("paused", "cancel", "cancelled"),
    ("cancelling", "stopped", "cancelled"),
}
"""Written out by hand: every other pair of status and event is refused."""

PAIRS = [(old, new) for old, new in product(Status, Status) if old is not new]


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("status", Status)
def test_each_event_leads_where_the_contract_says(status: Status, event: Event) -> None:
    expected = {to for source, name, to in CONTRACT if (source, name) == (status, event)}
    assert {TRANSITIONS[status, event]} if (status, event) in TRANSITIONS else set() == expected
    assert (status in sources(event)) == bool(expected)


def test_sources_come_in_the_order_of_the_statuses() -> None:
    assert sources(Event.CANCEL) == (Status.PENDING, Status.RUNNING, Status.PAUSED)


def test_the_groups_are_the_documented_ones() -> None:
    assert {"completed", "failed", "cancelled"} == FINAL
    assert {"pending", "running", "paused"} == CANCELLABLE
    assert {"pending", "running", "paused", "cancelling"} == ACTIVE
    assert IDLE == "idle"
    assert IDLE not in set(Status)


def test_nothing_leaves_a_final_status_and_every_other_status_can_end() -> None:
    assert not {source for source, _ in TRANSITIONS} & FINAL
    reached = set(FINAL)
    for _ in Status:
        reached |= {source for (source, _), to in TRANSITIONS.items() if to in reached}
    assert reached == set(Status)


def test_after_a_cancel_nothing_but_cancelled_can_come() -> None:
    after = {to for (source, _), to in TRANSITIONS.items() if source is Status.CANCELLING}
    assert after == {Status.CANCELLED}


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[Status.CANCELLED, Event.RESUME] = Status.RUNNING  # type: ignore[index]


# -- the schema says the same ----------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, "memory")
        connection.execute(
            "INSERT INTO project (id, account, root, name, created_at, updated_at) VALUES ('p', 'me', '/', 'p', 0, 0)"
        )
        connection.execute(
            "INSERT INTO session (id, account, project, created_at, updated_at) VALUES ('s', 'me', 1, 0, 0)"
        )
        yield connection


def columns(status: str) -> dict[str, object]:
    """What a row must have beside its status, for the CHECKs to let it pass."""
    return {
        "finished_at": 9 if status in FINAL else None,
        "failure": "{}" if status == "failed" else None,
        "cancel_requested_at": 5,
        "started_at": 1,
        "epoch": None,
    }


def insert(connection: sqlite3.Connection, status: str) -> None:
    connection.execute(
        """INSERT INTO workflow (id, session, project, status, message, plan, total_steps, created_at,
               finished_at, failure, cancel_requested_at, started_at, epoch)
           VALUES ('w', 1, 1, :status, 'm', '{}', 1, 0,
               :finished_at, :failure, :cancel_requested_at, :started_at, :epoch)""",
        {"status": status, **columns(status)},
    )


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_the_schema_allows_exactly_the_transitions_of_the_table(
    database: sqlite3.Connection, old: Status, new: Status
) -> None:
    insert(database, old)
    update = """UPDATE workflow SET status = :status, finished_at = :finished_at, failure = :failure,
                cancel_requested_at = :cancel_requested_at, started_at = :started_at, epoch = :epoch"""
    values = {"status": new, **columns(new)}
    if any(source is old and to is new for (source, _), to in TRANSITIONS.items()):
        database.execute(update, values)
        expected = new
    else:
        with pytest.raises(sqlite3.IntegrityError, match=r"no such transition|final is final"):
            database.execute(update, values)
        expected = old
    assert database.execute("SELECT status FROM workflow").fetchone() == (expected,)


def test_the_schema_knows_exactly_the_statuses_of_the_table(database: sqlite3.Connection) -> None:
    for status in Status:
        insert(database, status)
        database.execute("DELETE FROM workflow")
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        insert(database, IDLE)


@pytest.mark.parametrize("status", Status)
def test_the_schema_lets_a_row_change_exactly_while_it_is_not_final(
    database: sqlite3.Connection, status: Status
) -> None:
    insert(database, status)
    change = "UPDATE workflow SET step_message = 'news'"
    if status in ACTIVE:
        database.execute(change)
    else:
        with pytest.raises(sqlite3.IntegrityError, match="final is final"):
            database.execute(change)


@pytest.mark.parametrize("status", Status)
def test_the_schema_has_room_for_another_workflow_exactly_when_the_first_is_final(
    database: sqlite3.Connection, status: Status
) -> None:
    insert(database, status)
    another = """INSERT INTO workflow (id, session, project, status, message, plan, total_steps, created_at)
                 VALUES ('w2', 1, 1, 'pending', 'm', '{}', 1, 0)"""
    if status in FINAL:
        database.execute(another)
    else:
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            database.execute(another)
