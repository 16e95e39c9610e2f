"""Bugs to plant where writers share a commit, and where looks must not read everything."""

from __future__ import annotations

from .plant import Plant, plant, within

GROUPS = "state/group_commit.py"
SAID = "            self._hop.back(self._committed, *answers)\n"

PLANTS: tuple[Plant, ...] = (
    plant(
        "group: a refused one leaves behind what it did",
        within(GROUPS, "test_store_group"),
        'connection.execute("ROLLBACK" if alone else "ROLLBACK TO member")',
        'connection.execute("ROLLBACK" if alone else "RELEASE member")\n'
        '            connection.execute("SAVEPOINT member")',
    ),
    plant(
        "group: a refused one takes the others with it",
        within(GROUPS, "test_store_group"),
        '"ROLLBACK" if alone else "ROLLBACK TO member"',
        '"ROLLBACK" if alone else "ROLLBACK"',
    ),
    plant(
        "group: what undoes all is forgotten",
        within(GROUPS, "test_store_group"),
        "        left.remove(broken)  # the others once more, without it\n",
        "        return\n",
    ),
    plant(
        "group: everybody is told before the commit",
        within(GROUPS, "test_store_group", "test_proof_power"),
        "                _transaction(connection, members)\n",
        "                self._hop.back(*[m.over.give for m in members if m.over is not None])\n"
        "                _transaction(connection, members)\n",
    ),
    plant(
        "group: trouble at the commit is told to one",
        within(GROUPS, "test_store_group"),
        "            for member in members:\n                member.error = trouble\n",
        "            members[0].error = trouble\n",
    ),
    plant(
        "group: everybody commits for himself",
        within(GROUPS, "test_store_group"),
        "min(len(self._waiting), MOST_TOGETHER)",
        "min(len(self._waiting), 1)",
    ),
    plant(
        "group: it is as large as it comes",
        within(GROUPS, "test_store_group"),
        "min(len(self._waiting), MOST_TOGETHER)",
        "len(self._waiting)",
    ),
    plant(
        "group: each member is a transaction",
        within(GROUPS, "test_proof_power"),
        '            connection.execute("RELEASE member")\n',
        '            connection.execute("RELEASE member")\n'
        '            connection.execute("COMMIT")\n            connection.execute("BEGIN IMMEDIATE")\n',
    ),
    plant(
        "group: the room that one gave up serves only him",
        within("state/sqlite_base.py", "test_store_group"),
        "return self._reserves > before  # or another one of ours gave it up meanwhile",
        "return False",
    ),
    plant(
        "a turn outlives its owner in a forked child",
        within("state/turn.py", "test_turn"),
        "os.register_at_fork(after_in_child=_close_all)\n",
        "",
    ),
    plant(
        "a turn is taken at a file that was deleted",
        within("state/turn.py", "test_turn"),
        "if self._kept >= 0 and os.fstat(self._kept).st_nlink == 0:",
        "if False:",
    ),
    plant(
        "a worker reads every workflow to find what waits",
        within("state/sqlite_claim.py", "test_store_plans"),
        "{NOT_FINAL} AND (status",
        "(status",
    ),
    plant(
        "housekeeping reads every session",
        within("state/migrations/sqlite/0003_many_sessions.sql", "test_store_plans"),
        "CREATE INDEX session_by_age ON session (updated_at);",
        "",
    ),
    plant(
        "every look at a session is planned anew",
        within("state/migrations/sqlite/0003_many_sessions.sql", "test_store_plans"),
        "CREATE INDEX session_by_age ON session (updated_at);",
        "CREATE INDEX session_by_age ON session (updated_at) WHERE account <> '';",
    ),
)
