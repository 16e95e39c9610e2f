"""Planted bugs: each is put into a copy of the code, and the tests it names must notice it.

    make plants                      all of them (ten minutes)
    make plants ARGS="-k deploy"     those whose name contains a word

A test that cannot fail is worth nothing; this is how we know of ours. `tests/test_plants.py` sees to it that
every plant still fits the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "server", "state", "tools")
LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Plant:
    """A bug: in `file`, `right` becomes `wrong`; one of the test modules must then fail."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


def _in(module: str, *tests: str) -> tuple[str, tuple[str, ...]]:
    return module, tests


def _plant(name: str, place: tuple[str, tuple[str, ...]], right: str, wrong: str) -> Plant:
    return Plant(name, place[0], right, wrong, place[1])


SCHEMA = "state/migrations/sqlite/0001_initial.sql"
PLANTS: tuple[Plant, ...] = (
    _plant(
        "the table lacks decline",
        _in("state/transitions.py", "test_transitions"),
        "        (Status.PAUSED, Event.DECLINE): Status.CANCELLED,\n",
        "",
    ),
    _plant(
        "a trigger lets a cancelled one complete",
        _in(SCHEMA, "test_transitions"),
        "    ('cancelling', 'cancelled'))",
        "    ('cancelling', 'cancelled'), ('cancelling', 'completed'))",
    ),
    _plant(
        "final rows may change",
        _in(SCHEMA, "test_schema"),
        "WHEN OLD.status IN ('cancelled', 'completed', 'failed')\n",
        "WHEN 0\n",
    ),
    _plant(
        "a deploy starts under an old epoch",
        _in(SCHEMA, "test_schema"),
        "WHEN NEW.deploy = 1 AND",
        "WHEN 0 AND",
    ),
    _plant(
        "a cancel decides in every status",
        _in("state/sqlite_decisions.py", "test_store_decisions"),
        " AND status IN ({quoted(sources(Event.CANCEL))})\n    RETURNING",
        "\n    RETURNING",
    ),
    _plant(
        "a cancel leaves the gate open",
        _in("state/sqlite_decisions.py", "test_store_decisions"),
        '        self._close_gate(c, session["w_n"], "cancelled", by)\n',
        "",
    ),
    _plant(
        "a step begins at any position",
        _in("state/sqlite_worker.py", "test_store_worker"),
        "AND status = 'running' AND position = :position",
        "AND status = 'running' AND :position > 0",
    ),
    _plant(
        "a stale worker's word counts",
        _in("state/sqlite_endings.py", "test_store_worker", "test_store_endings"),
        ' AND :epoch = {CURRENT}"',
        ' AND {CURRENT} > 0"',
    ),
    _plant(
        "the newest is claimed first",
        _in("state/sqlite_worker.py", "test_store_worker"),
        "ORDER BY w.n LIMIT 1)",
        "ORDER BY w.n DESC LIMIT 1)",
    ),
    _plant(
        "a worker leaves although something waits",
        _in("state/sqlite_worker.py", "test_store_worker"),
        "SELECT 1 FROM workflow WHERE status IN ('pending', 'running', 'cancelling')) RETURNING",
        "SELECT 1 FROM workflow WHERE 0) RETURNING",
    ),
    _plant(
        "progress is no news",
        _in("state/sqlite_worker.py", "test_store_revision"),
        "            if shown:\n                self._touch",
        "            if False:\n                self._touch",
    ),
    _plant(
        "a page says there is more when there is not",
        _in("state/sqlite_lookup.py", "test_store_messages"),
        "has_more=len(rows) > query.limit",
        "has_more=len(rows) >= query.limit",
    ),
    _plant(
        "reading on repeats a message",
        _in("state/sqlite_lookup.py", "test_store_messages"),
        "m.id > :after",
        "m.id >= :after",
    ),
    _plant(
        "any account may look",
        _in("state/sqlite_rows.py", "test_store_contract"),
        "WHERE s.account = :account AND ",
        "WHERE :account <> '' AND ",
    ),
    _plant(
        "the commit is not synced",
        _in("state/sqlite_base.py", "test_store_opening"),
        "synchronous = FULL",
        "synchronous = NORMAL",
    ),
    _plant(
        "a newer schema is taken",
        _in("state/migrate.py", "test_store_opening"),
        "    if found > newest:",
        "    if False:",
    ),
    _plant(
        "another program's database is taken",
        _in("state/migrate.py", "test_store_opening"),
        "foreign = tables > 0 and _version(connection) == 0",
        "foreign = False",
    ),
    _plant(
        "who takes over the look-out is not woken",
        _in("state/sqlite_base.py", "test_store_waiting"),
        "            self._wake()  # somebody else must look now",
        "            pass",
    ),
    _plant(
        "the store's file is readable by all",
        _in("state/location.py", "test_store_places"),
        "os.O_CLOEXEC, 0o600)",
        "os.O_CLOEXEC, 0o644)",
    ),
    _plant(
        "a keeper survives its worker",
        _in("engine/keeper_launch.py", "test_keeper", "test_processes"),
        "    prctl(SET_CHILD_SUBREAPER, 1)\n",
        "",
    ),
    _plant(
        "a sweep trusts the environment alone",
        _in("engine/processes.py", "test_processes"),
        "                or self._has_brand(pid)\n",
        "",
    ),
    _plant(
        "a sweep takes any process with the number",
        _in("engine/processes.py", "test_processes"),
        "                if process and process.boot_id == self._boot:\n"
        "                    found.add((process.pid, process.start_ticks))",
        "                if process:\n"
        "                    found.add((process.pid, (identify(process.pid) or process).start_ticks))",
    ),
    _plant(
        "a worker does not sweep",
        _in("engine/worker.py", "test_worker_life"),
        "            await self._sweep(tasks)\n",
        "",
    ),
    _plant(
        "a cancel kills nothing",
        _in("engine/runner.py", "test_worker_life"),
        "        self._cancelled = True\n        if self._attempt is not None:\n            self._attempt.stop()\n",
        "        self._cancelled = True\n",
    ),
    _plant(
        "a killed keeper's orphans live on",
        _in("engine/step_attempt.py", "test_worker_life"),
        "result = replace(result, killed=KeeperPool.kill_strays())",
        "result = replace(result, killed=0)",
    ),
    _plant(
        "secrets are shown",
        _in("engine/step_attempt.py", "test_worker"),
        'secrets = [self._environment.get(name, "") for name in self._step.secrets]',
        "secrets: list[str] = []",
    ),
    _plant(
        "the environment is kept for ever",
        _in("engine/runner.py", "test_worker"),
        "                self._folder.forget()\n",
        "                pass\n",
    ),
    _plant(
        "a null argument is an error",
        _in("tools/registry.py", "test_tools"),
        "if value is not None}",
        "}",
    ),
    _plant(
        "an answer is longer than max_chars",
        _in("tools/get_messages.py", "test_tool_messages"),
        "        if size > room:",
        "        if size > room + 200:",
    ),
    _plant(
        "a line has no bound",
        _in("server/framing.py", "test_framing"),
        "        if len(self._held) + len(part) > MAX_LINE_BYTES:",
        "        if False:",
    ),
)


def planted(plant: Plant | None, folder: Path) -> None:
    """Make `folder`/bilt_mcp a copy of the code with the bug in it, if any."""
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "bilt_mcp" / name, ignore=ignored)
    if plant is None:
        return
    file = folder / "bilt_mcp" / plant.file
    file.write_text(file.read_text("utf-8").replace(plant.right, plant.wrong), "utf-8")


def outcome(plant: Plant | None, modules: tuple[str, ...]) -> str:
    """What the test modules say of a copy with the bug in it: `passed`, `failed`, `hung` or `broken`."""
    with tempfile.TemporaryDirectory(prefix="bilt-plant-") as folder:
        planted(plant, Path(folder))
        files = [f"tests/{name}.py" for name in modules]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        environ = {**os.environ, "PYTHONPATH": folder}
        try:
            run = subprocess.run(
                command, cwd=ROOT, env=environ, capture_output=True, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            return "hung"
        return {0: "passed", 1: "failed"}.get(run.returncode, "broken")


def main() -> int:
    """Plant every bug, one after the other; 1 when one was not noticed, or a sound copy does not pass."""
    parser = argparse.ArgumentParser(
        description="Put bugs into a copy of the code; the tests must notice."
    )
    parser.add_argument(
        "-k", metavar="WORD", default="", help="only plants whose name has this word"
    )
    parser.add_argument("--control", action="store_true", help="only the copies without a bug")
    given = parser.parse_args()
    chosen = [plant for plant in PLANTS if given.k in plant.name]
    wrong = 0
    # Without this a module that fails for another reason would seem to notice everything.
    for module in sorted({name for plant in chosen for name in plant.tests}):
        said = outcome(None, (module,))
        wrong += said != "passed"
        print(f"control: {said:7} {module}", flush=True)
    for plant in [] if given.control else chosen:
        began = time.monotonic()
        said = outcome(plant, plant.tests)
        wrong += said not in ("failed", "hung")
        print(f"{said:7} {time.monotonic() - began:5.1f} s  {plant.name}", flush=True)
    print(f"{wrong} wrong: a control must have passed, a plant must have failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
