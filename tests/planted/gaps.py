"""Bugs to plant that no test noticed once."""

from __future__ import annotations

from .plant import Place, Plant, plant, within

RUNNER = "engine/runner.py"
ATTEMPT = "engine/step_attempt.py"
DECISIONS = "state/sqlite_decisions.py"
HOUSEKEEPING = "state/migrations/sqlite/0002_housekeeping.sql"


def engine(file: str, *tests: str) -> Place:
    """Tests of test_gaps_engine.py, without their `test_`."""
    return within(file, *(f"test_gaps_engine.py::test_{name}" for name in tests))


def store(file: str, *tests: str) -> Place:
    """Tests of test_gaps_store.py."""
    return within(file, *(f"test_gaps_store.py::test_{name}" for name in tests))


def tools(file: str, *tests: str) -> Place:
    """Tests of test_gaps_tools.py."""
    return within(file, *(f"test_gaps_tools.py::test_{name}" for name in tests))


GATE = "the_receipt_of_a_gate_that_ends_a_workflow_knows_of_the_deploy_before_it"
BESIDE = "what_lies_beside_a_store_is_counted_as_it_is_now_and_not_when_it_is_gone"
UNVERIFIED = "a_cancel_is_not_over_before_the_last_process_is_gone"
TRAPPED = "a_last_step_that_ends_well_because_it_was_told_to_stop_has_not_succeeded"
NOT_DONE = "a_deploy_that_ends_well_because_it_was_cancelled_is_not_called_done"

PLANTS: tuple[Plant, ...] = (
    plant(
        "gap: one yes opens every later gate",
        engine(RUNNER, "every_gate_asks_although_an_earlier_one_was_confirmed"),
        "position=position, confirmed=False)",
        "position=position)",
    ),
    plant(
        "gap: exit code 0 after TERM is a success",
        engine(ATTEMPT, TRAPPED, NOT_DONE),
        "self.timed_out or result.stopped or result.lost",
        "self.timed_out or result.lost",
    ),
    plant(
        "gap: a step whose keeper was lost is tried again",
        engine(RUNNER, "a_step_whose_keeper_was_killed_is_never_started_again"),
        " or out_of_time or ended.result.lost",
        " or out_of_time",
    ),
    plant(
        "gap: a step is tried again when the time of all is up",
        engine(RUNNER, "when_the_time_of_all_steps_is_up_none_is_tried_again"),
        "number > step.retries or out_of_time or",
        "number > step.retries or",
    ),
    plant(
        "gap: survivors count as verified dead",
        engine(RUNNER, UNVERIFIED),
        "receipt = self._receipt(result, verified=False)",
        "receipt = self._receipt(result, verified=True)",
    ),
    plant(
        "gap: survivors are not waited for",
        engine(ATTEMPT, UNVERIFIED),
        "            await process.wait_gone()\n",
        "",
    ),
    plant(
        "gap: a halt says that all is dead",
        engine(
            RUNNER, "a_halt_calls_nothing_dead_that_still_lives_and_is_recorded_when_it_is_gone"
        ),
        "verified=dead)",
        "verified=True)",
    ),
    plant(
        "gap: a swept workflow is cancelled although something lives",
        engine(
            "engine/worker.py",
            "what_a_dead_worker_left_is_cancelled_only_when_a_sweep_leaves_nothing_alive",
        ),
        "            if swept.survivors and lost.status is Status.CANCELLING:",
        "            if False and lost.status is Status.CANCELLING:",
    ),
    plant(
        "gap: a stop that comes while the start is recorded is lost",
        engine(ATTEMPT, "a_stop_while_the_start_is_being_recorded_starts_nothing"),
        "        self.ticket = ticket\n        if self._stopped:",
        "        self.ticket = ticket\n        if False:",
    ),
    plant(
        "gap: a halt is anybody's",
        engine(
            RUNNER,
            "a_halt_of_another_account_stops_nothing_and_nonsense_does_not_end_the_worker",
        ),
        "theirs = claim.account == account and",
        'theirs = account != "" and',
    ),
    plant(
        "gap: nonsense on the control socket ends the worker",
        engine(
            "engine/control.py",
            "a_halt_of_another_account_stops_nothing_and_nonsense_does_not_end_the_worker",
        ),
        "        except Exception:\n            # Whoever",
        "        except (OSError, ValueError):\n            # Whoever",
    ),
    plant(
        "gap: a halt forgets the deploy that runs",
        engine(RUNNER, "a_halt_that_cannot_ask_the_store_counts_the_step_that_runs_as_a_deploy"),
        "claim.plan.steps[: claim.position]",
        "claim.plan.steps[: claim.position - 1]",
    ),
    plant(
        "gap: a late halt cancels the next workflow",
        engine(RUNNER, "a_halt_that_is_recorded_late_never_cancels_the_next_workflow"),
        "if await self._store.workflow_status(claim.workflow_id) not in FINAL:",
        "if await self._store.workflow_status(claim.workflow_id) is not None and FINAL:",
    ),
    plant(
        "gap: what is prepared is cleared up at once",
        engine("engine/worker.py", "what_is_prepared_survives_a_worker_that_clears_up_meanwhile"),
        "PREPARED_SECONDS = 3600.0",
        "PREPARED_SECONDS = 0.0",
    ),
    plant(
        "gap: who was stopped never hears TERM",
        engine("engine/keeper.py", "a_step_that_somebody_has_stopped_hears_that_it_is_to_end"),
        "signal.SIGTERM, signal.SIGCONT)",
        "signal.SIGTERM)",
    ),
    plant(
        "gap: any word with y confirms",
        engine("server/confirm.py", "only_the_whole_word_yes_confirms"),
        '.strip().lower() == "yes"',
        '.strip().lower().startswith("y")',
    ),
    plant(
        "gap: a declined workflow keeps its secrets",
        engine("server/confirm.py", "only_the_whole_word_yes_confirms"),
        "engine.forget(workflow.id)",
        "pass",
    ),
    plant(
        "gap: what comes back from a pause counts itself",
        store("state/sqlite_claim.py", "what_was_let_go_at_a_pause_does_not_take_its_own_place"),
        " AND o.epoch IS NOT NULL))",
        "))",
    ),
    plant(
        "gap: a restart of the machine sets the time back",
        store(
            "state/sqlite_claim.py", "time_since_the_start_goes_on_over_a_restart_of_the_machine"
        ),
        "ELSE :mono - max(0, :now - started_at) END",
        "ELSE :mono END",
    ),
    plant(
        "gap: a known key is refused when the store is full",
        store("state/sqlite.py", "a_key_gets_its_first_answer_also_when_there_is_no_room_for_more"),
        "if started.workflow_id == new_id:",
        "if started.workflow_id:",
    ),
    plant(
        "gap: keep_days may be 0",
        store(
            "state/settings.py",
            "an_age_that_would_delete_everything_or_nothing_sensible_is_refused",
        ),
        "0 < value < 1e12",
        "0 <= value < 1e12",
    ),
    plant(
        "gap: a reserve that was half written stays so",
        store("state/reserve.py", "a_reserve_that_was_only_half_written_is_made_whole"),
        "path.exists() and path.stat().st_size >= RESERVE_BYTES",
        "path.exists()",
    ),
    plant(
        "gap: a declined gate forgets the deploy before it",
        store("state/sqlite_gates.py", GATE),
        'step, DeployState(session["deploy"])',
        "step, DeployState.NOT_STARTED",
    ),
    plant(
        "gap: a cancelled pause forgets the deploy before it",
        store(DECISIONS, GATE),
        'DeployState(session["deploy"] or "not_started")',
        "DeployState.NOT_STARTED",
    ),
    plant(
        "gap: a cancel rewrites who answered a gate",
        store("state/sqlite_writes.py", "who_answered_a_gate_is_not_rewritten_by_a_later_cancel"),
        'WHERE workflow = ? AND answer IS NULL"',
        'WHERE workflow = ?"',
    ),
    plant(
        "gap: files that changed are counted twice",
        store(HOUSEKEEPING, BESIDE),
        "bytes + NEW.bytes - OLD.bytes",
        "bytes + NEW.bytes",
    ),
    plant(
        "gap: files that are gone still count",
        store(HOUSEKEEPING, BESIDE),
        "SET bytes = bytes - OLD.bytes;",
        "SET bytes = bytes;",
    ),
    plant(
        "gap: an accepted message gets no worker when its client goes",
        tools(
            "tools/starting.py",
            "a_message_that_is_being_accepted_when_the_client_goes_gets_its_worker",
        ),
        "with anyio.CancelScope(shield=True):",
        "with anyio.CancelScope():",
    ),
    plant(
        "gap: what is being cancelled needs no worker",
        tools(
            "tools/waiting.py",
            "whoever_looks_wakes_a_worker_while_the_workflow_needs_one",
        ),
        '("pending", "running", "cancelling")',
        '("pending", "running")',
    ),
    plant(
        "gap: a client's name is shown as it is",
        tools(
            "tools/desk.py",
            "the_name_that_a_client_gives_itself_is_shown_without_what_a_terminal_acts_on",
        ),
        '"".join(ch for ch in said if ch.isprintable())[:MAX_NAME]',
        "said[:MAX_NAME]",
    ),
    plant(
        "gap: a replaced worker deletes for ever",
        within(
            "state/sqlite_prune.py",
            "test_store_prune.py::test_a_replaced_worker_deletes_nothing_and_is_told_that_nothing_is_left",
        ),
        "if row is None or not self._fenced(c, epoch):\n            return False",
        "if row is None or not self._fenced(c, epoch):\n            return True",
    ),
    plant(
        "gap: read-only folders stay for ever",
        within(
            "engine/housekeeping.py",
            "test_housekeeping.py::test_read_only_folders_are_deleted_too_and_nothing_behind_a_link_is_touched",
        ),
        "os.chmod(inner, 0o700)",
        "os.chmod(inner, 0o500)",
    ),
)
