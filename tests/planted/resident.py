"""Bugs to plant in what joins clients to the resident."""

from __future__ import annotations

from .plant import Place, Plant, plant, within

PROOF = (
    "test_proof_resident.py::"
    "test_every_request_is_answered_once_however_often_the_resident_is_killed"
)


def resident(file: str, *tests: str) -> Place:
    """Tests of test_resident.py, without their `test_`."""
    return within(file, *(f"test_resident.py::test_{name}" for name in tests))


SLOW_CALL = "a_client_sees_only_a_slow_call_when_the_resident_is_killed"

PLANTS: tuple[Plant, ...] = (
    plant(
        "resident: a start that comes again starts twice",
        within("server/connection.py", PROOF),
        'return f"{self._name}/{number}" if self._name and number else None',
        "return None",
    ),
    plant(
        "resident: the handshake is answered twice",
        resident("server/connection.py", SLOW_CALL),
        "            self._muted.add(message.id)\n            return\n",
        "            pass\n",
    ),
    plant(
        "resident: the handshake is not told to the next one",
        resident("server/relay.py", SLOW_CALL),
        "            self.kept[number] = line",
        "            pass",
    ),
    plant(
        "resident: what was unanswered is forgotten",
        resident("server/relay.py", SLOW_CALL),
        "        for number, line in self.open.items():\n",
        "        for number, line in dict[int, bytes | None]().items():\n",
    ),
    plant(
        "resident: what was answered is asked again",
        resident("server/relay.py", SLOW_CALL),
        "            elif kind in (kinds.ANSWER, kinds.DONE):\n",
        "            elif kind == kinds.DONE:\n",
    ),
    plant(
        "resident: its lock goes to its children",
        resident("server/resident.py", "a_build_goes_on_when_the_resident_is_killed"),
        "    os.set_inheritable(int(lock), False)\n",
        "    os.set_inheritable(int(lock), True)\n    import subprocess\n"
        '    subprocess.Popen(["sleep", "60"], close_fds=False)\n',
    ),
    plant(
        "resident: a cancelled request is asked again",
        resident("server/connection.py", "a_request_that_was_cancelled_is_not_made_again"),
        "        if isinstance(message, JSONRPCNotification):\n",
        "        if not isinstance(message, JSONRPCNotification):\n",
    ),
    plant(
        "resident: any code will do",
        resident("server/resident.py", "code_that_changed_under_a_client_is_not_mixed_with_it"),
        "    if identity != code_identity():\n",
        "    if not identity:\n",
    ),
    plant(
        "resident: all have its own variables",
        resident("server/residence.py", "each_client_has_its_own_project_variables_and_answers"),
        '        environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)\n',
        "        environ = dict(os.environ) if pairs else {}\n",
    ),
    plant(
        "resident: a worker of other code is as good",
        resident(
            "engine/local.py",
            "a_worker_of_other_code_finishes_its_work_and_takes_up_nothing_more",
        ),
        '            return said.get("code") == code_identity()\n',
        "            return True\n",
    ),
    plant(
        "resident: who is to retire takes up nothing",
        within(
            "engine/worker.py",
            "test_worker_life.py::"
            "test_a_worker_that_is_to_retire_takes_up_first_what_it_was_started_for",
        ),
        '        if "retire" in asked and self._looked:\n',
        '        if "retire" in asked:\n',
    ),
    plant(
        "resident: others may write where its socket is",
        resident("server/joining.py", "a_folder_into_which_others_can_write_has_none"),
        "found.st_mode & 0o022",
        "found.st_mode & 0o000",
    ),
    plant(
        "resident: anybody may answer",
        resident("server/joining.py", "a_process_of_another_user_is_none_of_ours"),
        "    return int.from_bytes(user, sys.byteorder) == os.geteuid()",
        "    return bool(user)",
    ),
    plant(
        "resident: it goes while a client is there",
        resident(
            "server/residence.py",
            "it_stays_for_a_client_that_says_nothing_and_goes_when_there_is_none",
        ),
        "            if self._connected:\n",
        "            if not self:\n",
    ),
    plant(
        "resident: what kills it is tried for ever",
        within(
            "server/relay.py",
            "test_relay.py::test_a_client_that_loses_every_resident_soon_asks_for_no_more",
        ),
        "        if self._losses >= MOST_LOSSES:",
        "        if self._losses >= 1000 * MOST_LOSSES:",
    ),
    plant(
        "resident: a cancel that comes again hits the next workflow",
        within(
            "state/sqlite_decisions.py",
            "test_store_decisions.py::"
            "test_a_cancel_that_comes_again_answers_for_the_same_workflow_and_hits_no_other",
        ),
        '        before = decided_before(c, session, key, "cancel")\n',
        '        before = decided_before(c, session, None, "cancel")\n',
    ),
    plant(
        "resident: an answer is lost with the last resident",
        within(
            "server/relay.py",
            "test_relay.py::"
            "test_what_was_answered_before_the_last_resident_was_lost_still_reaches_the_client",
        ),
        "                self._flush()  # what has been answered is nobody else's to say\n",
        "",
    ),
    plant(
        "resident: a closed log is a lost resident",
        within(
            "server/relay.py",
            "test_relay.py::"
            "test_what_was_answered_before_the_last_resident_was_lost_still_reaches_the_client",
        ),
        "    except OSError:\n        pass  # nobody reads the log\n",
        "    except ZeroDivisionError:\n        pass\n",
    ),
    plant(
        "resident: what was done before it died is refused when it comes again",
        within(
            "state/sqlite_decisions.py",
            "test_resident_repeats.py::"
            "test_whatever_was_done_before_is_answered_as_done_and_done_once",
        ),
        """           WHERE i.session = :session AND i.key = :key AND i.digest = :what\"\"\",\n""",
        """           WHERE i.session = :session AND i.key = :key AND i.digest = 'x' || :what\"\"\",\n""",
    ),
    plant(
        "resident: a project that was made before it died is somebody else's",
        within(
            "state/sqlite_projects.py",
            "test_resident_repeats.py::"
            "test_whatever_was_done_before_is_answered_as_done_and_done_once",
        ),
        """uuid5(_BY_KEY, f"{account} {key}")""",
        "uuid4()",
    ),
    plant(
        "resident: an answer to the dead one is taken by the next",
        within(
            "server/questions.py",
            "test_resident_repeats.py::"
            "test_an_answer_to_what_a_dead_one_has_asked_is_none_to_what_the_next_one_asks",
        ),
        'int.from_bytes(os.urandom(2), "big") // 2 * _EACH',
        "_EACH",
    ),
    plant(
        "resident: what it has said before its end is not read",
        within(
            "server/relay.py",
            "test_relay.py::test_what_a_resident_has_said_before_it_was_lost_is_not_asked_again",
        ),
        "        except ConnectionError:\n            self._to_resident.clear()",
        "        except ConnectionError:\n            resident.setblocking(False)\n"
        "            while resident.recv(READ_BYTES):\n                pass",
    ),
    plant(
        "resident: who has closed his end loses his answers with it",
        within(
            "server/relay.py",
            "test_relay.py::test_a_client_that_has_closed_its_end_loses_no_answer_with_a_resident",
        ),
        "                return not self._backlog.ended or bool(",
        "                return not self._backlog.ended and bool(",
    ),
    plant(
        "resident: nobody new can reach it, and it stays",
        resident("server/residence.py", "it_goes_when_its_socket_is_gone_and_nobody_notices"),
        "        life.cancel()\n",
        "",
    ),
    plant(
        "connection: who reads nothing is read for ever",
        within(
            "server/connection.py",
            "test_connection.py::"
            "test_of_a_client_that_reads_no_answers_no_more_is_read_until_it_does",
        ),
        "                while len(self._open) >= MOST_OPEN:\n",
        "                while len(self._open) >= 1000 * MOST_OPEN:\n",
    ),
    plant(
        "resident: whoever waits for it holds it up",
        within(
            "server/joining.py",
            "test_joining.py::test_those_who_wait_for_what_another_one_starts_do_not_hold_it_up",
        ),
        "LOOK_SECONDS if self._asked.child else PATIENT_LOOK_SECONDS",
        "LOOK_SECONDS",
    ),
)
