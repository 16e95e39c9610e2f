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
        "the environment is kept for ever",
        within("engine/runner.py", "test_worker"),
        "                self._folder.forget()\n",
        "                pass\n",
    ),
)
