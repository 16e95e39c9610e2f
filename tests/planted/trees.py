"""Bugs to plant in killing process trees, and in keeping and showing what they print."""

from __future__ import annotations

from .plant import Plant, plant, within

CANCEL = "test_proof_trees.py::test_no_process_of_any_shape_is_alive_when_a_cancel_is_answered"
KILL_9 = "test_proof_trees.py::test_nothing_lives_or_deploys_after_kill_9_of_worker_keeper_or_both"
STOPPED = (
    "test_proof_trees.py::"
    "test_a_cancel_that_a_stopped_worker_cannot_hear_is_done_when_that_worker_is_killed"
)
BACKGROUND = (
    "test_proof_trees.py::test_nothing_that_a_step_left_in_the_background_outlives_its_normal_end"
)
FLOOD = "test_proof_output.py::test_a_flood_stays_within_the_bounds_of_log_messages_and_memory"
STRINGS = "test_proof_output.py::test_no_forbidden_character_is_left_of_random_control_strings"
THROUGH = "test_proof_output.py::test_no_forbidden_character_comes_through_a_real_step"
LINEAR = "test_proof_output.py::test_hostile_lines_of_64_kib_take_time_in_proportion_to_plain_ones"
SECRETS = "test_proof_output.py::test_no_planted_secret_comes_through_a_real_step_whole_or_split"
HALVES = "test_proof_output.py::test_no_secret_that_is_taken_half_written_comes_through"

PLANTS: tuple[Plant, ...] = (
    plant(
        "tree: a worker stays when its store is removed",
        within(
            "engine/heart.py",
            "test_worker_life.py::"
            "test_when_its_store_is_removed_the_worker_goes_and_nothing_that_it_ran_lives_on",
        ),
        "if away >= GONE_BEATS:",
        "if False:",
    ),
    plant(
        "tree: a keeper adopts no orphans",
        within("engine/keeper_launch.py", CANCEL),
        "    prctl(SET_CHILD_SUBREAPER, 1)\n",
        "",
    ),
    plant(
        "tree: the leader's end is taken for the end of all",
        within("engine/keeper.py", CANCEL, BACKGROUND),
        "            if not children:\n                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)\n",
        "            if self.leader_ended:\n                self.finish()\n",
    ),
    plant(
        "tree: a cancel is answered before it is done",
        within("tools/cancelling.py", CANCEL),
        "lambda now: is_over(now, workflow.id)",
        "lambda now: True",
    ),
    plant(
        "tree: a normal end kills nothing",
        within("engine/keeper.py", BACKGROUND),
        "                    self.leader_exit(info.si_code, info.si_status)\n                    self.kill_all()\n",
        "                    self.leader_exit(info.si_code, info.si_status)\n                    self.finish()\n",
    ),
    plant(
        "tree: a keeper does not mind its worker's end",
        within("engine/keeper.py", KILL_9, STOPPED),
        "        if self.channel.lost and self.phase != KILLING:\n",
        "        if self.channel.lost and self.phase == IDLE:\n",
    ),
    plant(
        "tree: a worker adopts no orphans",
        within("engine/worker.py", KILL_9),
        "    become_subreaper()\n",
        "",
    ),
    plant(
        "tree: a sweep knows neither brand nor list",
        within("engine/processes.py", KILL_9),
        "                (pid, one.ticks) in recorded\n                or (pid, one.ticks) in self.hit\n"
        "                or self._in_session(one)\n                or self._has_cookie(pid)\n"
        "                or self._has_brand(pid)\n",
        "                (pid, one.ticks) in self.hit\n"
        "                or self._in_session(one)\n                or self._has_cookie(pid)\n",
    ),
    plant(
        "output: the log of a step has no bound",
        within("engine/keeper_output.py", FLOOD),
        "self.segments[which], offset, self.tail_bytes\n",
        "self.segments[which], offset, 1 << 40\n",
    ),
    plant(
        "output: messages have no bound",
        within("engine/step_output.py", FLOOD),
        "        if self._left <= 0:\n",
        "        if False:\n",
    ),
    plant(
        "output: a keeper remembers all that was printed",
        within("engine/keeper_output.py", FLOOD),
        "        self.bytes += size\n",
        '        self.bytes += size\n        self.__dict__.setdefault("all", bytearray()).extend(data)\n',
    ),
    plant(
        "output: zero width characters are shown",
        within("engine/safe_text.py", STRINGS, THROUGH),
        r"\u200b-\u200f\u202a-\u202e",
        r"\u202a-\u202e",
    ),
    plant(
        "output: only the raw log is kept",
        within("engine/run_folder.py", THROUGH),
        "yield reader.read(log[at : at + _PIECE_BYTES])",
        'yield log[at : at + _PIECE_BYTES].decode(errors="replace")',
    ),
    plant(
        "output: a pattern takes time in the square of a line",
        within("engine/safe_text.py", LINEAR),
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+",
        r"eyJ[A-Za-z0-9_-]{8,}",
    ),
    plant(
        "output: secrets are looked for before colours are taken off",
        within("engine/output.py", SECRETS),
        "        text = clean(self._frame)\n",
        "        text = clean(self._redactor.redact(self._frame))\n        self._redactor = Redactor()\n",
    ),
    plant(
        "output: every read is a line",
        within("engine/output.py", SECRETS, HALVES),
        "        return first + lines, left_out\n",
        '        return first + lines + ("" if self._empty else self._end() + "\\n"), left_out\n',
    ),
)
