"""Bugs to plant where the store cannot be written, or many write at once."""

from __future__ import annotations

from .plant import Plant, plant, within

PLANTS: tuple[Plant, ...] = (
    plant(
        "writers take no turns",
        within("state/group_commit.py", "test_turn"),
        "            with self._turn.taken(BUSY_SECONDS):\n                members",
        "            if True:\n                members",
    ),
    plant(
        "a store is closed out of turn",
        within("state/sqlite_file.py", "test_turn"),
        "with self._turn.taken(BUSY_SECONDS):\n            connection.close()",
        "with contextlib.nullcontext():\n            connection.close()",
    ),
    plant(
        "who gave up waiting keeps the turn",
        within("state/turn.py", "test_turn"),
        "                if held >= 0:\n                    os.close(held)\n",
        "                pass\n",
    ),
    plant(
        "a bad SQLite is thought a good one",
        within("state/driver.py", "test_turn"),
        "version < (3, 51, 3)",
        "version < (3, 40, 0)",
    ),
    plant(
        "a cancel that cannot be recorded kills nothing",
        within("tools/cancelling.py", "test_trouble"),
        "        if halted is None:\n",
        "        if True:\n",
    ),
    plant(
        "a cancel that was carried out is never recorded",
        within("engine/runner.py", "test_trouble"),
        "            await insist(self._decide)\n",
        "            pass\n",
    ),
    plant(
        "a slow store keeps the build alive",
        within("tools/cancelling.py", "test_trouble"),
        "STORE_SECONDS = 2.0",
        "STORE_SECONDS = 60.0",
    ),
    plant(
        "no room is kept for a full disk",
        within("state/sqlite_worker.py", "test_trouble"),
        "        keep_reserve(self.location.reserve)\n",
        "",
    ),
    plant(
        "the room that is kept is not used",
        within("state/sqlite_base.py", "test_trouble"),
        "if not (vital and isinstance(trouble, StoreFull) and self._more_room(before)):",
        "if True:",
    ),
    plant(
        "what is not over is pruned too",
        within("state/sqlite_prune.py", "test_store_prune"),
        "session = session.n AND {NOT_FINAL})",
        "session = session.n AND status = 'running')",
    ),
    plant(
        "a stale worker prunes",
        within("state/sqlite_prune.py", "test_store_prune"),
        "            if not self._fenced(c, epoch):\n                return 0\n",
        "",
    ),
    plant(
        "the files of a pruned session stay",
        within("engine/housekeeping.py", "test_housekeeping"),
        "    shutil.rmtree(folder, ignore_errors=True)\n",
        "    pass\n",
    ),
    plant(
        "files do not count for the limit",
        within("state/sqlite_prune.py", "test_housekeeping"),
        "(SELECT bytes FROM kept_total) +",
        "0 +",
    ),
    plant(
        "the limit is not looked at",
        within("state/sqlite_prune.py", "test_housekeeping"),
        "        if held >= most:\n",
        "        if False:\n",
    ),
)
