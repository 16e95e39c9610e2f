"""Bugs to plant where only a person may say yes."""

from __future__ import annotations

from .plant import Plant, plant, within

PLANTS: tuple[Plant, ...] = (
    plant(
        "whoever cannot ask a user is believed all the same",
        within(
            "tools/gate.py",
            "test_self_approval.py::test_no_forged_answer_counts_in_the_era_without_a_handshake",
        ),
        "    elicitation = None if said is None else said.elicitation\n"
        "    if elicitation is None or (elicitation.form is None and elicitation.url is not None):\n"
        "        return False\n",
        "    del said\n",
    ),
    plant(
        "resuming is approving",
        within(
            "state/sqlite_decisions.py",
            "test_self_approval.py::test_no_tool_and_no_argument_stands_for_a_yes",
        ),
        'if session["g_id"] is not None:',
        "if False:",
    ),
    plant(
        "a step that is left out runs all the same",
        within(
            "state/sqlite_gates.py",
            "test_self_approval.py::test_a_no_that_skips_the_step_never_runs_it_and_a_key_brings_no_answer_back",
        ),
        '            self._move_to(c, workflow, session["position"] + 1)\n'
        "            run_again(c, workflow, Event.SKIP)\n",
        "            run_again(c, workflow, Event.SKIP, confirmed=True)\n",
    ),
    plant(
        "the question shows a project's name as it is",
        within(
            "tools/gate.py",
            "test_self_approval.py::test_what_a_project_is_called_cannot_change_what_the_user_reads",
        ),
        'return "".join(ch if ch.isprintable() else "?" for ch in text)[:_MOST_OF_A_PATH]',
        "return text[:_MOST_OF_A_PATH]",
    ),
    plant(
        "an answer is read from wherever it comes",
        within(
            "server/confirm.py",
            "test_self_approval.py::test_a_step_has_no_terminal_at_which_to_say_yes",
        ),
        """            return keyboard.readline().strip().lower() == "yes"
    except OSError:
        return None""",
        """            return keyboard.readline().strip().lower() == "yes"
    except OSError:
        return input() == "yes\"""",
    ),
)
