"""Bugs to plant where something comes in, and where something is kept."""

from __future__ import annotations

from .plant import Plant, plant, within

INPUTS = "test_proof_inputs"
POWER = "test_proof_power"
ADVISORIES = "test_advisories.py::test_"

PLANTS: tuple[Plant, ...] = (
    plant(
        "power: the commit is not synced",
        within("state/sqlite_file.py", POWER),
        "synchronous = FULL",
        "synchronous = NORMAL",
    ),
    plant(
        "power: the journal is in memory",
        within("state/sqlite_file.py", POWER),
        "journal_mode = WAL",
        "journal_mode = MEMORY",
    ),
    plant(
        "power: a verb is many transactions",
        within("state/group_commit.py", POWER),
        '        connection.execute("BEGIN IMMEDIATE")\n',
        "        pass\n",
    ),
    plant(
        "door: an answer is sent twice",
        within("server/connection.py", INPUTS),
        "        await self._send(brief(message), number, keep)\n",
        "        await self._send(brief(message), number, keep)\n"
        "        await self._send(brief(message), number, keep)\n",
    ),
    plant(
        "door: an unknown argument is ignored",
        within("tools/registry.py", INPUTS),
        "if strangers := [key for key in given if key not in known]:",
        "given = {key: value for key, value in given.items() if key in known}\n"
        "        if strangers := list[str]():",
    ),
    plant(
        "door: a batch is not answered",
        within("server/connection.py", INPUTS),
        "            await self._send(refused.answer, line.number)\n",
        "            if refused.answer.error.code == -32700:\n"
        "                await self._send(refused.answer, line.number)\n",
    ),
    plant(
        "door: a line without an end is kept",
        within(
            "server/lines.py",
            f"{ADVISORIES}cve_2026_63119_a_line_of_64_mib_without_an_end_takes_bounded_memory",
        ),
        "            self._held.clear()\n        elif not self._too_long:",
        "            self._held += part\n        elif not self._too_long:",
    ),
    plant(
        "door: the message is pasted into the command",
        within(
            "engine/step_attempt.py",
            f"{ADVISORIES}cve_2025_53107_54994_and_mcp05_no_text_of_a_caller_becomes_a_command",
        ),
        "argv=step.argv,",
        'argv=tuple(w.replace("$BILT_MESSAGE", self._claim.message) for w in step.argv),',
    ),
    plant(
        "door: files of a run are readable by all",
        within(
            "engine/run_folder.py",
            f"{ADVISORIES}cve_2026_77250_and_77268_nobody_else_can_read"
            "_the_store_and_no_secret_is_in_it",
        ),
        "os.open(path, flags, 0o600)",
        "os.open(path, flags, 0o644)",
    ),
    plant(
        "door: a link is followed when a log is written",
        within(
            "engine/run_folder.py",
            f"{ADVISORIES}symlinks_that_a_step_plants_lead_nothing_of_ours_astray",
        ),
        " | os.O_NOFOLLOW",
        "",
    ),
)
