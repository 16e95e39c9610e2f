"""Bugs to plant in MCP over HTTP: credentials, limits, and what must not outlive a client."""

from __future__ import annotations

from .plant import Plant, plant, within

WORLDS = "test_http_mcp.py"
LIMITS = "test_http_mcp_limits.py"
LIVE = "test_http_mcp_live.py"
REFUSALS = "test_http_mcp_refusals.py"

PLANTS: tuple[Plant, ...] = (
    plant(
        "http: all keys of an account share one MCP server",
        within(
            "server/http/mcp_servers.py",
            f"{WORLDS}::test_the_http_session_of_one_key_is_unknown_to_every_other",
        ),
        "return identity.credential, str(account), account.project_id, identity.name, identity.read_only",
        'return "", str(account), account.project_id, "", identity.read_only',
    ),
    plant(
        "http: a read-only key may call every tool that it knows",
        within(
            "server/app.py",
            f"{WORLDS}::test_a_read_only_key_changes_nothing_with_any_tool",
        ),
        "if self._clients.read_only and tool is not None",
        "if False and tool is not None",
    ),
    plant(
        "http: a read-only key cancels tasks",
        within(
            "server/read_only.py",
            f"{WORLDS}::test_a_read_only_key_does_nothing_to_a_task",
        ),
        '"tools/call", "tasks/get",',
        '"tools/call", "tasks/get", "tasks/cancel",',
    ),
    plant(
        "http: the history does not know the key of a caller",
        within(
            "server/http/mcp_servers.py",
            f"{WORLDS}::test_the_history_knows_the_key_and_the_way_that_a_caller_came",
        ),
        'caller=partial(caller, identity, "mcp http"),',
        "",
    ),
    plant(
        "http: who answers a question is not known by his key",
        within(
            "tools/desk.py",
            f"{LIVE}::test_a_person_answers_a_gate_through_a_client",
        ),
        'return replace(program, client=f"the user of {program}", surface=surface)',
        'return Caller(f"the user of {program}", surface)',
    ),
    plant(
        "http: a tool call past the rate is an error of the protocol",
        within(
            "server/http/mcp_limits.py",
            f"{LIMITS}::test_a_tool_call_past_the_rate_is_answered_as_documented",
        ),
        'if asked.method == "tools/call" and asked.id is not None:',
        "if False:",
    ),
    plant(
        "http: a session that is in use makes room",
        within(
            "server/http/mcp_sessions.py",
            f"{LIMITS}::test_a_session_that_is_in_use_makes_no_room",
        ),
        "idle = [found for found in self._sessions.items() if not found[1].users]",
        "idle = list(self._sessions.items())",
    ),
    plant(
        "http: whatever has no session takes the room of one",
        within(
            "server/http/mcp_sessions.py",
            f"{LIMITS}::test_what_begins_no_session_leaves_none",
        ),
        'elif asked is not None and asked.method == "initialize":',
        "elif asked is not None:",
    ),
    plant(
        "http: of those that begin at once only one makes room",
        within(
            "server/http/mcp_sessions.py",
            f"{LIMITS}::test_clients_that_begin_at_once_find_room_beside_those_that_went",
        ),
        "if len(self._sessions) + self._beginning > MOST_SESSIONS:",
        "if len(self._sessions) >= MOST_SESSIONS:",
    ),
    plant(
        "http: past the rate a call cannot even be ended",
        within(
            "server/http/mcp_limits.py",
            f"{LIMITS}::test_what_ends_a_call_that_was_let_in_is_taken_past_the_rate",
        ),
        'return asked.method not in (None, "notifications/cancelled") or asked.id is not None',
        "return asked.method is not None",
    ),
    plant(
        "http: the answer of a person is lost past the rate",
        within(
            "server/http/mcp_limits.py",
            f"{LIVE}::test_a_person_who_answers_past_the_rate_is_heard",
        ),
        'return asked.method not in (None, "notifications/cancelled") or asked.id is not None',
        'return asked.method != "notifications/cancelled" or asked.id is not None',
    ),
    plant(
        "http: an MCP client is refused in a shape that it does not read",
        within(
            "server/http/errors.py",
            f"{REFUSALS}::test_a_client_with_a_wrong_key_shows_why",
        ),
        'if surface == "mcp":',
        "if False:",
    ),
    plant(
        "http: a request with no proper id is taken for a notification",
        within(
            "server/http/rpc_body.py",
            f"{REFUSALS}::test_what_is_no_message_is_refused_with_a_sentence_and_the_session_goes_on",
        ),
        'if "id" in given and (',
        "if False and (",
    ),
    plant(
        "http: of two requests with one id the first is never answered",
        within(
            "server/http/mcp_sessions.py",
            f"{REFUSALS}::test_of_two_requests_with_one_id_the_second_is_refused_and_the_first_answered",
        ),
        "        if number in session.asked:\n",
        "        if False:\n",
    ),
    plant(
        "http: a client that asks for the events it has missed gets no answer",
        within(
            "server/http/mcp_sessions.py",
            f"{REFUSALS}::test_a_stream_can_be_asked_for_again_with_and_without_an_event",
        ),
        "await self._manager.handle_request(_anew(scope), receive, note)",
        "await self._manager.handle_request(scope, receive, note)",
    ),
    plant(
        "http: an open question holds up the end",
        within(
            "server/http/mcp_sessions.py",
            f"{LIVE}::test_a_question_that_nobody_will_answer_does_not_hold_up_the_end",
        ),
        "for name in list(self._sessions):\n                        await self._end(name)",
        "pass",
    ),
    plant(
        "http: a server goes while it is used",
        within(
            "server/http/mcp_servers.py",
            f"{LIMITS}::test_a_server_that_nobody_uses_goes_and_comes_again",
        ),
        "            if not self.users:\n",
        "            if True:\n",
    ),
    plant(
        "http: what a session has subscribed to outlives it",
        within(
            "server/live.py",
            f"{LIVE}::test_a_session_that_is_over_watches_nothing_any_more",
        ),
        "            connection.exit_stack.callback(over.cancel)\n",
        "",
    ),
    plant(
        "http: streams end without a word when the server stops",
        within("server/live.py", f"{LIVE}::test_a_server_that_stops_ends_streams_well"),
        "        handler.close()\n",
        "        pass\n",
    ),
    plant(
        "http: a held answer holds up a server that stops",
        within("tools/waiting.py", f"{LIVE}::test_a_server_that_stops_answers_who_waits"),
        "return beat is not None and desk.stopping()",
        "return False",
    ),
    plant(
        "http: who listens sees what others saw before the last change",
        within("server/shared_looks.py", "test_shared_looks"),
        "return self._changes == changes and ",
        "return ",
    ),
    plant(
        "http: who listens waits for ever for one who has gone",
        within("server/shared_looks.py", "test_shared_looks"),
        "            if mine.found is None and self._shared.get(what) is mine:\n"
        "                del self._shared[what]\n",
        "",
    ),
)
