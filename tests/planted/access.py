"""Bugs in who may use the store, and in whose what is."""

from __future__ import annotations

from .plant import Plant, plant, within

ACCOUNTS = "test_store_accounts"

PLANTS: tuple[Plant, ...] = (
    plant(
        "accounts: a limited key reaches every session of its account",
        within("state/sqlite_rows.py", ACCOUNTS),
        "AND (:only IS NULL OR p.id = :only) AND ",
        "AND (:only IS NULL OR 1) AND ",
    ),
    plant(
        "accounts: a limited key reads others' messages",
        within("state/sqlite_pages.py", ACCOUNTS),
        "AND (:only IS NULL OR project = (SELECT n FROM project WHERE id = :only))",
        "AND (:only IS NULL OR project)",
    ),
    plant(
        "accounts: a limited key finds others' ids",
        within("state/sqlite_history.py", ACCOUNTS),
        'if who["only"] is not None:',
        "if False:",
    ),
    plant(
        "accounts: a limited key notices what happens to others' sessions",
        within("state/sqlite_base.py", ACCOUNTS),
        'if only is None or only == _project_id(connection, row["project"]):',
        "if True:",
    ),
    plant(
        "accounts: a halt stops what is not in the key's project",
        within(
            "engine/runner.py",
            "test_gaps_engine.py::test_a_halt_of_another_account_stops_nothing_and_nonsense_does_not_end_the_worker",
        ),
        " and limited_to(account) in (None, claim.project_id)",
        "",
    ),
)
