"""Bugs to plant in the state machine and the store."""

from __future__ import annotations

from .plant import Plant, plant, within

SCHEMA = "state/migrations/sqlite/0001_initial.sql"
PLANTS: tuple[Plant, ...] = (
    plant(
        "the table lacks decline",
        within("state/transitions.py", "test_transitions"),
        "        (Status.PAUSED, Event.DECLINE): Status.CANCELLED,\n",
        "",
    ),
    plant(
        "a trigger lets a cancelled one complete",
        within(SCHEMA, "test_transitions"),
        "    ('cancelling', 'cancelled'))",
        "    ('cancelling', 'cancelled'), ('cancelling', 'completed'))",
    ),
    plant(
        "final rows may change",
        within(SCHEMA, "test_schema"),
        "WHEN OLD.status = 'cancelled' OR OLD.status = 'completed' OR OLD.status = 'failed'\n",
        "WHEN 0\n",
    ),
    plant(
        "a deploy starts under an old epoch",
        within(SCHEMA, "test_schema"),
        "WHEN NEW.deploy = 1 AND",
        "WHEN 0 AND",
    ),
    plant(
        "a cancel decides in every status",
        within("state/sqlite_decisions.py", "test_store_decisions"),
        " AND status IN ({quoted(sources(Event.CANCEL))})\n    RETURNING",
        "\n    RETURNING",
    ),
    plant(
        "a cancel leaves the gate open",
        within("state/sqlite_decisions.py", "test_store_decisions"),
        '        self._close_gate(c, session["w_n"], "cancelled", by)\n',
        "",
    ),
    plant(
        "a step begins at any position",
        within("state/sqlite_worker.py", "test_store_worker"),
        "AND status = 'running' AND position = :position",
        "AND status = 'running' AND :position > 0",
    ),
    plant(
        "a stale worker's word counts",
        within("state/sqlite_endings.py", "test_store_worker", "test_store_endings"),
        ' AND :epoch = {CURRENT}"',
        ' AND {CURRENT} > 0"',
    ),
    plant(
        "the newest is claimed first",
        within("state/sqlite_claim.py", "test_store_worker"),
        "ORDER BY w.n LIMIT 1)",
        "ORDER BY w.n DESC LIMIT 1)",
    ),
    plant(
        "a worker leaves although something waits",
        within("state/sqlite_worker.py", "test_store_worker"),
        "AND NOT EXISTS ({_NEEDED}) RETURNING",
        "RETURNING",
    ),
    plant(
        "progress is no news",
        within("state/sqlite_worker.py", "test_store_revision"),
        "            if shown:\n                self._touch",
        "            if False:\n                self._touch",
    ),
    plant(
        "a page says there is more when there is not",
        within("state/sqlite_pages.py", "test_store_messages"),
        "has_more=len(rows) > query.limit",
        "has_more=len(rows) >= query.limit",
    ),
    plant(
        "reading on repeats a message",
        within("state/sqlite_pages.py", "test_store_messages"),
        "m.id > :low",
        "m.id >= :low",
    ),
    plant(
        "a variant's number starts anew with each write",
        within("state/sqlite_writes.py", "test_store_pages"),
        "nths[variant] = found[0][0] if found else 0",
        "nths[variant] = 0",
    ),
    plant(
        "what older code wrote is not counted",
        within("state/sqlite_rows.py", "test_store_ranks"),
        'NTH = """coalesce(m.nth, (',
        'NTH = """coalesce(m.nth, 0 * (',
    ),
    plant(
        "a workflow goes on into the next",
        within("state/sqlite_pages.py", "test_store_pages"),
        'row["next"] - 1',
        'row["next"]',
    ),
    plant(
        "a look that ends early says nothing of what is left",
        within("state/sqlite_pages.py", "test_store_pages"),
        "has_more=len(left) > query.limit or read_to is not None",
        "has_more=len(left) > query.limit",
    ),
    plant(
        "one look goes through all of a history",
        within("state/sqlite_pages.py", "test_store_pages"),
        "LOOK = 1024",
        "LOOK = 10**9",
    ),
    plant(
        "any account may look",
        within("state/sqlite_rows.py", "test_store_contract"),
        "WHERE s.account = :account AND ",
        "WHERE :account <> '' AND ",
    ),
    plant(
        "the commit is not synced",
        within("state/sqlite_file.py", "test_store_opening"),
        "synchronous = FULL",
        "synchronous = NORMAL",
    ),
    plant(
        "a newer schema is taken",
        within("state/migrate.py", "test_store_opening"),
        "    if found > newest:",
        "    if False:",
    ),
    plant(
        "another program's database is taken",
        within("state/migrate.py", "test_store_opening"),
        "foreign = tables > 0 and _version(connection) == 0",
        "foreign = False",
    ),
    plant(
        "who looks for all goes, and nobody looks",
        within("state/lookout.py", "test_store_waiting"),
        "        if not self._waiting and not self._watches:\n            self._stop()",
        "        self._stop()",
    ),
    plant(
        "the store's file is readable by all",
        within("state/location.py", "test_store_places"),
        "os.open(path, flags, 0o600)",
        "os.open(path, flags, 0o644)",
    ),
)
