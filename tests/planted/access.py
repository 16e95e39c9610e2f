"""Bugs in who may use the store, and in whose what is."""

from __future__ import annotations

from .plant import Plant, plant, within

ACCOUNTS = "test_store_accounts"
KEYS = "test_access_keys"
LOGINS = "test_access_logins"
LIMITS = "test_access_limits"
COMMAND = "test_keys_command"
ACCESS_FILE = "state/sqlite_access.py"
LIMITS_FILE = "state/sqlite_limits.py"

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
    plant(
        "keys: a revoked one is still good",
        within(ACCESS_FILE, KEYS),
        "WHERE k.digest = ? AND k.revoked_at IS NULL",
        "WHERE k.digest = ?",
    ),
    plant(
        "keys: they are not synced to the disk",
        within("state/sqlite_file.py", "test_access_power"),
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = NORMAL",
    ),
    plant(
        "keys: who is let in waits for a key that is being made",
        within(ACCESS_FILE, KEYS),
        "return await self._at_once(partial(self._admit, digest, limit))",
        "return await self._on(self._writer, partial(self._admit, digest, limit, wait=True))",
    ),
    plant(
        "logins: setting the time back keeps them alive",
        within(ACCESS_FILE, LOGINS),
        " or (boot == boot_id() and mono >= ends_mono)",
        "",
    ),
    plant(
        "logins: an unused one goes on",
        within(ACCESS_FILE, LOGINS),
        "return now < used.at + idle and (used.mono is None or mono < used.mono + idle)",
        "return True",
    ),
    plant(
        "limits: one too many",
        within(LIMITS_FILE, LIMITS),
        "if left <= 0:",
        "if left < 0:",
    ),
    plant(
        "limits: processes do not take turns",
        within(LIMITS_FILE, LIMITS),
        "with self._turn.taken(patience):\n                return",
        "if True:\n                return",
    ),
    plant(
        "limits: they go by the clock on the wall",
        within(LIMITS_FILE, LIMITS),
        "mono = self._clock.monotonic()",
        "mono = self._clock.now()",
    ),
    plant(
        "limits: each process goes on with its own file",
        within(LIMITS_FILE, LIMITS),
        "if self._connection is not None and self._file != _identity(self._path):",
        "if False:",
    ),
    plant(
        "limits: all stand in line behind a process that was stopped",
        within(LIMITS_FILE, LIMITS),
        "self._patience = IMPATIENT_SECONDS",
        "self._patience = PATIENCE_SECONDS",
    ),
    plant(
        "limits: a full disk lets nobody in",
        within(LIMITS_FILE, LIMITS),
        "if fills_disk(self._path, trouble):",
        "if False:",
    ),
    plant(
        "keys: one that nobody has seen stays",
        within("server/keys.py", COMMAND),
        "await access.revoke_key(key.id)  # nobody has it",
        "pass",
    ),
    plant(
        "keys: the limit that was meant is ignored",
        within("server/command.py", COMMAND),
        'if given.command == "keys" and given.project is not None:',
        "if False:",
    ),
    plant(
        "limits: everybody waits for another process that counts",
        within(
            "state/sqlite_limits.py",
            "test_access_at_once.py::test_while_another_process_counts_nobody_else_waits",
        ),
        "with self._turn.taken(0):",
        "with self._turn.taken(2):",
    ),
)
