"""Bugs to plant in what decides races, and in what is read while others write."""

from __future__ import annotations

from .plant import Plant, plant, within

RACES = "test_proof_races"
DECISIONS = "state/sqlite_decisions.py"
GATE = "            session = self._at_gate(c, account, session_id, action_id)\n"
PLANTS: tuple[Plant, ...] = (
    plant(
        "a gate is looked at before the transaction that answers it",
        within("state/sqlite_gates.py", RACES),
        "        def yes(c: sqlite3.Connection) -> Row:\n" + GATE,
        "        session = await self._read(lambda c: self._at_gate(c, account, session_id, action_id))\n\n"
        "        def yes(c: sqlite3.Connection) -> Row:\n",
    ),
    plant(
        "a receipt says of the deploy what the worker guessed",
        within("state/sqlite_endings.py", RACES),
        'kept = replace(receipt, deploy=DeployState(row["deploy"]))',
        "kept = receipt",
    ),
    plant(
        "a page is read at one moment and counted at another",
        within("state/sqlite_base.py", "test_proof_paging"),
        '    connection.execute("BEGIN")\n'
        "    try:\n        return work(connection)\n    finally:\n        connection.rollback()\n",
        "    return work(connection)\n",
    ),
    plant(
        "reading on leaves out what did not fit",
        within("tools/get_messages.py", "test_proof_paging"),
        "read_to = kept[-1].id if kept else 0",
        "read_to = page.messages[-1].id if kept else 0",
    ),
    plant(
        "a cancelled workflow still asks for a pause",
        within(DECISIONS, "test_store_model"),
        "cancel_reason = :reason, pause_requested = 0,",
        "cancel_reason = :reason,",
    ),
)
