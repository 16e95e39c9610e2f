"""Bugs to plant in what a person decides, in projects, and in the audit."""

from __future__ import annotations

from .plant import Plant, plant, within

PLANTS: tuple[Plant, ...] = (
    plant(
        "gates: who fills in the form has said yes",
        within("tools/confirm_action.py", "test_tool_gates"),
        "isinstance(said, AcceptedElicitation) and said.data.confirm",
        "isinstance(said, AcceptedElicitation)",
    ),
    plant(
        "gates: who closes the question has said no",
        within("tools/confirm_action.py", "test_tool_gates"),
        "if isinstance(said, CancelledElicitation):",
        "if False:",
    ),
    plant(
        "gates: an answer that fits no question is told as a failure of ours",
        within(
            "tools/registry.py",
            "test_tool_gates.py::test_an_answer_that_fits_no_question_is_refused_and_changes_nothing",
        ),
        "if type(cause) is ToolError:",
        "if False:",
    ),
    plant(
        "gates: a client that cannot ask gets the protocol's error",
        within("tools/gate.py", "test_tool_gates"),
        "    if not can_ask(ctx):\n",
        "    if False:\n",
    ),
    plant(
        "gates: a client that goes while it decides leaves the workflow to nobody",
        within("tools/gate.py", "test_gaps_tools"),
        "    with anyio.CancelScope(shield=True):\n        workflow = await decision\n",
        "    with anyio.CancelScope():\n        workflow = await decision\n",
    ),
    plant(
        "gates: the question says what the build said",
        within("tools/gate.py", "test_tool_gates"),
        "        gate.message,\n",
        '        f"{gate.message} {workflow.step_message}",\n',
    ),
    plant(
        "gates: an answer after its time counts",
        within("state/sqlite_gates.py", "test_store_gates"),
        "            if not self._is_late(session):\n                return session\n            raise",
        "            if True:\n                return session\n            raise",
    ),
    plant(
        "gates: nobody notices that one has expired",
        within("state/sqlite_gates.py", "test_store_gates"),
        "        if not self._is_late(row):\n",
        "        if True:\n",
    ),
    plant(
        "gates: an answer is only good for the process that asked",
        within("server/sealing.py", "test_tool_gates"),
        "            return _read(self._key_file)\n        except (FileNotFoundError, ValueError):\n            pass\n",
        "            self._key_file.unlink()\n        except (FileNotFoundError, ValueError):\n            pass\n",
    ),
    plant(
        "audit: a pause is not in it",
        within("state/sqlite_decisions.py", "test_store_gates"),
        '            self._record(c, session, "pause", by, reason)\n',
        "",
    ),
    plant(
        "audit: a reason is lost",
        within("state/sqlite_writes.py", "test_store_gates"),
        "                by.surface,\n                reason,\n",
        "                by.surface,\n                None,\n",
    ),
    plant(
        "projects: eleven an hour",
        within("state/sqlite_projects.py", "test_store_gates", "test_tool_projects"),
        'if row["made"] >= CREATED_AN_HOUR:',
        'if row["made"] > CREATED_AN_HOUR:',
    ),
    plant(
        "projects: a file that is there is written over",
        within("engine/new_project.py", "test_tool_projects"),
        'file.open("x", encoding="utf-8")',
        'file.open("w", encoding="utf-8")',
    ),
    plant(
        "projects: other accounts' are listed",
        within("state/sqlite_projects.py", "test_store_gates", "test_tool_projects"),
        "WHERE account = :account AND (:only IS NULL OR id = :only) AND n < :before\n",
        "WHERE n < :before\n",
    ),
)
