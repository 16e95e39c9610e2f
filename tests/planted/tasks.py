"""Bugs to plant in the tasks extension."""

from __future__ import annotations

from .plant import Plant, plant, within

SOURCE = "server/workflow_tasks.py"
WIRE = "server/tasks.py"
LISTENING = "server/task_listening.py"

PLANTS: tuple[Plant, ...] = (
    plant(
        "tasks: who cannot ask a person may answer for one",
        within(SOURCE, "test_task_gates.py::test_who_cannot_ask_a_person_cannot_answer_for_one"),
        "            if not can_ask(_tool_context(ctx)):\n                raise",
        "            if False:\n                raise",
    ),
    plant(
        "tasks: any accepted answer is a yes",
        within(SOURCE, "test_task_gates.py::test_a_persons_no_cancels_it"),
        "    return confirm\n",
        "    return True\n",
    ),
    plant(
        "tasks: a dismissed question is a no",
        within(SOURCE, "test_task_gates.py::test_a_question_that_is_dismissed_stays_open"),
        'return False if answer.action == "decline" else None',
        "return False",
    ),
    plant(
        "tasks: a cancel hits whatever the session does now",
        within(
            SOURCE,
            "test_tasks.py::test_a_task_that_is_over_never_cancels_what_its_session_does_now",
        ),
        ", workflow_id=workflow.id",
        "",
    ),
    plant(
        "tasks: a cancel tells nobody to kill",
        within(
            SOURCE,
            "test_tasks.py::test_a_task_is_working_while_it_is_being_cancelled_and_cancelled_when_it_is_dead",
        ),
        "                    await desk.engine.wake()\n",
        "                    pass\n",
    ),
    plant(
        "tasks: a task has no end of its time",
        within(
            SOURCE,
            "test_tasks.py::test_unknown_foreign_malformed_and_expired_ids_are_refused_alike",
        ),
        "    if time.time() * 1000 >= workflow.created_at + _ttl(desk, workflow):\n        raise NoSuchTask\n",
        "",
    ),
    plant(
        "tasks: a task is made of calls that take none",
        within(WIRE, "test_tasks.py::test_who_does_not_declare_the_extension_waits_as_before"),
        "return ctx.protocol_version in VERSIONS and TASKS in (declared or {})",
        "return True",
    ),
    plant(
        "tasks: a stream is told nothing but the beginning",
        within(SOURCE, "test_task_listening.py::test_a_completed_task_is_told_with_its_result"),
        "            await wait_until(desk, session.id, _has_passed(session.revision), LONG_SECONDS)\n",
        "            return\n",
    ),
    plant(
        "tasks: output is news",
        within(WIRE, "test_task_listening.py::test_output_alone_is_told_to_nobody"),
        "        return other is not None and (self.status, self.message, self.input_requests) == (",
        "        return other is self and (self.status, self.message, self.input_requests) == (",
    ),
    plant(
        "tasks: the acknowledgement names no tasks",
        within(
            LISTENING,
            "test_task_listening.py::test_one_stream_carries_tasks_and_what_it_asks_for_besides",
        ),
        '{**kept, "taskIds": self._task_ids}',
        "kept",
    ),
    plant(
        "state: a cancel that names a workflow hits another",
        within(
            "state/sqlite_decisions.py",
            "test_store_decisions.py::test_a_cancel_that_names_a_workflow_hits_no_other",
        ),
        'if workflow_id not in (None, session["w_id"]):',
        "if False:",
    ),
)
