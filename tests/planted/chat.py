"""Bugs to plant in the chat, its stream, and logins."""

from __future__ import annotations

from .plant import Plant, plant, within

CHAT = "test_chat.py::"
GATES = "test_chat_gates.py::"
LOGIN = "test_login.py::"
REJOIN = "test_chat_rejoin.py::"
STREAM = "test_chat_stream.py::"

PLANTS: tuple[Plant, ...] = (
    plant(
        "chat: a click that comes late answers the next question",
        within(
            "server/http/chat.py",
            GATES + "test_a_yes_before_the_next_question_is_answered_with_that",
        ),
        "        if gate is None or asked.action_id not in (None, gate.action_id):\n",
        "        if gate is None:\n",
    ),
    plant(
        "chat: an unknown thread is told from one where nothing waits",
        within(
            "server/http/chat.py", GATES + "test_where_nothing_waits_the_answer_is_the_same_for_all"
        ),
        "        except SessionNotFound:\n            raise nothing_pending() from None\n",
        "        except SessionNotFound:\n            raise\n",
    ),
    plant(
        "chat: a store that fails is told with its place",
        within(
            "server/http/chat_requests.py",
            CHAT + "test_a_store_that_fails_is_the_documented_error_and_says_nothing_of_us",
        ),
        '        raise Refused(500, code, f"{what}: {why}; error_id {error_id}") from error\n',
        '        raise Refused(500, code, f"{what}: {error.message}; error_id {error_id}") from error\n',
    ),
    plant(
        "chat: a conversation of another program is refused",
        within(
            "server/http/chat_models.py",
            CHAT + "test_a_conversation_may_be_sent_along_as_its_program_keeps_it",
        ),
        "        list[dict[str, Any]] | None,\n",
        "        list[dict[str, str]] | None,\n",
    ),
    plant(
        "chat: where a project is, is told",
        within(
            "server/http/chat_requests.py",
            CHAT + "test_a_project_that_cannot_run_says_why_and_not_where_it_is",
        ),
        "raise Refused(status, name, _told(error)) from None",
        "raise Refused(status, name, error.message) from None",
    ),
    plant(
        "chat: a stopping server keeps who waits",
        within(
            "server/http/chat.py",
            CHAT + "test_a_server_that_stops_lets_go_of_who_waits_and_the_workflow_goes_on",
        ),
        "await first_of(until_answered, gone, self._site.stopping.wait)",
        "await first_of(until_answered, gone)",
    ),
    plant(
        "chat: who has gone is waited for",
        within("server/http/chat.py", CHAT + "test_nothing_waits_on_for_a_caller_who_has_gone"),
        "await first_of(until_answered, gone, self._site.stopping.wait)",
        "await first_of(until_answered, self._site.stopping.wait)",
    ),
    plant(
        "stream: who comes back hears the last event again",
        within(
            "server/http/chat_events.py",
            STREAM + "test_a_workflow_that_fails_is_told_as_an_error_and_then_as_complete",
        ),
        "        if there > after\n",
        "        if there >= after\n",
    ),
    plant(
        "stream: what a build calls its files is told as ours",
        within(
            "server/http/chat_events.py",
            STREAM + "test_only_what_we_alone_have_said_is_not_marked_as_untrusted",
        ),
        'what.variant in ("info", "log")',
        'what.side == "user"',
    ),
    plant(
        "stream: output wakes nobody",
        within("state/sqlite_base.py", "test_store_timeline"),
        "    SELECT id, account, revision + coalesce(",
        "    SELECT id, account, revision + 0 * coalesce(",
    ),
    plant(
        "stream: each reads for himself",
        within(
            "server/http/chat_reading.py", REJOIN + "test_one_reads_for_all_who_are_equally_far"
        ),
        "        if reading is None:\n",
        "        if True:\n",
    ),
    plant(
        "stream: trouble with the store ends it",
        within(
            "server/http/chat_stream.py",
            REJOIN + "test_trouble_with_the_store_is_told_once_and_looked_over",
        ),
        "                    await anyio.sleep(TROUBLE_SECONDS)\n                    continue\n",
        "                    return\n",
    ),
    plant(
        "stream: a question whose time is up stays open",
        within(
            "server/http/chat_stream.py",
            STREAM + "test_a_question_whose_time_is_up_ends_the_stream_by_itself",
        ),
        "        look_at = time.monotonic() + expires_in(known.session)\n",
        '        look_at = float("inf")\n',
    ),
    plant(
        "timeline: a step's last words come after its end",
        within("state/sqlite_endings.py", "test_store_timeline"),
        '            done = self._finish_cancel(c, row["n"], stopped_text(kept), notes)\n'
        "            # Afterwards: what a step said last comes before its end.\n"
        '            self._close_steps(c, row["n"], "stopped")\n',
        '            self._close_steps(c, row["n"], "stopped")\n'
        '            done = self._finish_cancel(c, row["n"], stopped_text(kept), notes)\n',
    ),
    plant(
        "timeline: an attempt stands where the clock says",
        within("state/sqlite_worker.py", "test_store_timeline"),
        '{NEWEST_NOW.format(session="workflow.session")} FROM workflow',
        "NULL FROM workflow",
    ),
    plant(
        "timeline: the end is told before there is all",
        within("state/sqlite_timeline.py", "test_store_timeline"),
        "        if workflow.final and not has_more:\n",
        "        if workflow.final:\n",
    ),
    plant(
        "login: a script can read the cookie",
        within(
            "server/http/login.py",
            LOGIN + "test_a_key_is_exchanged_for_a_cookie_that_no_script_and_no_other_site_can_use",
        ),
        "                httponly=True,\n                samesite",
        "                httponly=False,\n                samesite",
    ),
    plant(
        "login: a logout leaves the login",
        within(
            "server/http/login.py",
            LOGIN + "test_after_the_logout_the_cookie_is_gone_and_good_for_nothing",
        ),
        '        with told_as("logout_error", "Failed to log out"):\n            await self._end(request)\n',
        '        with told_as("logout_error", "Failed to log out"):\n',
    ),
    plant(
        "login: behind TLS the cookie may travel in the clear",
        within(
            "server/http/login.py",
            LOGIN + "test_where_the_cookie_leaves_the_machine_it_travels_encrypted_only",
        ),
        '    if request.url.scheme == "https":\n        return True\n',
        "",
    ),
    plant(
        "login: a page that sends no origin is anybody's",
        within(
            "server/http/gate.py",
            LOGIN + "test_a_page_of_another_site_can_do_nothing_with_the_cookie",
        ),
        '            and head.get(b"sec-fetch-site") not in _SAME_PAGE\n',
        "            and False\n",
    ),
)
