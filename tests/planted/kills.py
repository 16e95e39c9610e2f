"""Bugs to plant in what must hold when processes are killed, and when many write at once."""

from __future__ import annotations

from .plant import Plant, plant, within

KILL = "test_proof_kill.py::test_nothing_acknowledged_is_lost_when_any_process_of_ours_is_killed"
TOLD = (
    "test_proof_kill.py::test_the_loss_of_a_worker_is_told_within_two_seconds_although_nobody_asks"
)
CLIENTS = (
    "test_proof_clients.py::test_sixteen_clients_meet_no_locked_store_and_none_of_them_starves"
)

PLANTS: tuple[Plant, ...] = (
    plant(
        "a keeper that is killed before it has a step fails the workflow",
        within(
            "engine/keepers.py",
            "test_step_attempt.py::test_a_keeper_that_is_killed_before_it_has_a_step_is_replaced",
        ),
        "TRIES = 3\n",
        "TRIES = 1\n",
    ),
    plant(
        "a message is acknowledged before it is written",
        within("state/sqlite.py", KILL),
        "        return await self._write(accept)\n",
        "        import asyncio\n\n        self._late = asyncio.ensure_future(self._write(accept))\n"
        "        return Started(session_id, new_id, Status.PENDING)\n",
    ),
    plant(
        "a message and its workflow are two transactions",
        within("state/sqlite_writes.py", "test_store_transactions"),
        '        self._append(c, session["s_n"], row["n"], said)\n        self._touch',
        '        c.commit()\n        c.execute("BEGIN IMMEDIATE")\n'
        '        self._append(c, session["s_n"], row["n"], said)\n        self._touch',
    ),
    plant(
        "a new worker does not report what was lost",
        within("engine/worker.py", KILL, TOLD),
        "                await self._report_lost(lost, swept)\n        await self._settle",
        "                pass\n        await self._settle",
    ),
    plant(
        "a lost workflow is put back in the queue",
        within("state/sqlite_worker.py", KILL, TOLD),
        '            self._close_steps(c, row["n"], "lost")\n',
        '            self._close_steps(c, row["n"], "lost")\n'
        '            if row["status"] == Status.RUNNING:\n'
        '                c.execute("UPDATE workflow SET epoch = NULL WHERE n = ?", (row["n"],))\n'
        "                return True\n",
    ),
    plant(
        "an orphaned keeper starts no worker",
        within("engine/keeper.py", TOLD),
        "            spawn_detached(self.on_orphaned[0], self.on_orphaned[1:])\n",
        "            pass\n",
    ),
    plant(
        "writers take no turns and wait for no lock",
        within("state/group_commit.py", CLIENTS),
        "            with self._turn.taken(BUSY_SECONDS):\n                members",
        '            connection.execute("PRAGMA busy_timeout = 0")\n            if True:\n                members',
    ),
    plant(
        "nobody waits for a locked store",
        within("state/group_commit.py", CLIENTS),
        "BUSY_SECONDS = 10.0\n",
        "BUSY_SECONDS = 0.0\n",
    ),
)
