"""Bugs to plant in running and killing."""

from __future__ import annotations

from .plant import Plant, plant, within

PLANTS: tuple[Plant, ...] = (
    plant(
        "a keeper survives its worker",
        within("engine/keeper_launch.py", "test_keeper", "test_processes"),
        "    prctl(SET_CHILD_SUBREAPER, 1)\n",
        "",
    ),
    plant(
        "a failure comes without the last lines of its step",
        within("engine/step_attempt.py", "test_failed_build"),
        "return Ended(result, timed_out, notes, output.last_lines)",
        "return Ended(result, timed_out, notes)",
    ),
    plant(
        "a sweep trusts the environment alone",
        within("engine/processes.py", "test_processes"),
        "                or self._has_brand(pid)\n",
        "",
    ),
    plant(
        "a sweep takes any process with the number",
        within("engine/processes.py", "test_processes"),
        "                if process and process.boot_id == self._boot:\n"
        "                    found.add((process.pid, process.start_ticks))",
        "                if process:\n"
        "                    found.add((process.pid, (identify(process.pid) or process).start_ticks))",
    ),
    plant(
        "a worker does not sweep",
        within("engine/worker.py", "test_worker_life"),
        "            await self._sweep(tasks)\n",
        "",
    ),
    plant(
        "a cancel kills nothing",
        within("engine/runner.py", "test_worker_life"),
        "        self._cancelled = True\n        if self._attempt is not None:\n            self._attempt.stop()\n",
        "        self._cancelled = True\n",
    ),
    plant(
        "a killed keeper's orphans live on",
        within(
            "engine/step_attempt.py",
            "test_proof_trees.py::test_nothing_lives_or_deploys_after_kill_9_of_worker_keeper_or_both",
        ),
        "result = replace(result, killed=KeeperPool.kill_strays())",
        "result = replace(result, killed=0)",
    ),
    plant(
        "secrets are shown",
        within("engine/step_attempt.py", "test_worker"),
        'secrets = [self._environment.get(name, "") for name in self._step.secrets]',
        "secrets: list[str] = []",
    ),
    plant(
        "a segment of a log that is written over keeps its old name",
        within("engine/keeper_output.py", "test_step_log"),
        "        self.mark(offset)  # from now on nothing of what was there counts\n",
        "",
    ),
    plant(
        "a segment of a log that changes while it is read is believed",
        within("engine/step_log.py", "test_step_log"),
        "        if read_part(path, head.end()).startswith(head[1]):\n",
        "        if True:\n",
    ),
    plant(
        "a worker that keeps up is told all of a flood",
        within("engine/keeper_output.py", "test_step_log"),
        "        self.allowance -= size\n",
        "",
    ),
    plant(
        "commands are not heard any more where nothing more is shown",
        within("engine/output.py", "test_output"),
        "if last is not None and not has_command(text):",
        "if last is not None:",
    ),
    plant(
        "the first line after a silence waits for the beat",
        within("engine/step_attempt.py", "test_step_attempt"),
        "                await anyio.sleep(GATHER_SECONDS)\n",
        "                await anyio.sleep(FLUSH_SECONDS)\n",
    ),
    plant(
        "more run at once than the store's settings say",
        within("engine/worker.py", "test_worker"),
        "self._store.settings().max_running or 0",
        "0",
    ),
    plant(
        "the environment is kept for ever",
        within("engine/runner.py", "test_worker"),
        "                self._folder.forget()\n",
        "                pass\n",
    ),
)
