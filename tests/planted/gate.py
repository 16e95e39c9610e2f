"""Bugs to plant in the gate before every route, and in how a server begins and ends."""

from __future__ import annotations

from .plant import Plant, plant, within

GATE = "test_gate.py::test_"
LIMITS = "test_gate_limits.py::test_"
SERVE = "test_serve.py::test_"
CONNECTIONS = "test_connections.py::test_"
OAUTH = "test_oauth.py::test_"

PLANTS: tuple[Plant, ...] = (
    plant(
        "connections: the first head may take for ever",
        within(
            "server/http/connection.py",
            f"{CONNECTIONS}who_never_comes_to_the_end_of_a_head_is_not_waited_for",
        ),
        "        else:\n            self._hurry()\n\n    def data_received",
        "\n    def data_received",
    ),
    plant(
        "connections: each byte of a head gives it more time",
        within(
            "server/http/connection.py",
            f"{CONNECTIONS}a_head_that_comes_byte_by_byte_has_no_more_time_for_that",
        ),
        "        if self._is_answering():\n            self._calm_down()\n        elif self._impatience is None and",
        "        self._calm_down()\n        if not self._is_answering() and",
    ),
    plant(
        "connections: a crowd is accepted before any of it is turned away",
        within(
            "server/http/listening.py",
            f"{CONNECTIONS}a_crowd_that_says_nothing_takes_no_more_files_than_it_may",
        ),
        "backlog=ACCEPTED_AT_ONCE,",
        "backlog=BACKLOG,",
    ),
    plant(
        "gate: a body may have two lengths",
        within(
            "server/http/head.py",
            f"{CONNECTIONS}a_body_with_two_lengths_is_refused_and_nothing_in_it_is_a_request",
        ),
        'if b"content-length" in found and b"transfer-encoding" in found:',
        "if False:",
    ),
    plant(
        "gate: whoever comes may have 4 MiB of memory",
        within("server/http/gate.py", f"{GATE}of_whom_nobody_knows_only_a_small_body_is_kept"),
        'if self._way.credential in ("bearer", "cookie") else min(most, SMALL_BODY)',
        "",
    ),
    plant(
        "gate: what is in a text counts as values",
        within("server/http/body.py", f"{GATE}what_is_in_a_text_are_no_values"),
        'return _marks(b"".join(plain.split(b\'"\')[::2])) > MOST_VALUES',
        "return True",
    ),
    plant(
        "gate: two million values are looked at",
        within(
            "server/http/gate.py",
            f"{GATE}a_body_of_very_many_values_is_refused_before_anybody_reads_it",
        ),
        "                refuse_crowd(body)\n",
        "",
    ),
    plant(
        "metrics: any tenant is told how much others do",
        within(
            "server/http/metrics.py",
            "test_health.py::test_metrics_are_of_all_accounts_and_so_no_tenants_matter",
        ),
        "if account != LOCAL_ACCOUNT or account.project_id is not None:",
        "if not account:",
    ),
    plant(
        "gate: a body without a length is not counted",
        within(
            "server/http/body.py",
            f"{GATE}a_body_of_50_mb_without_a_length_is_never_kept"
            "_and_refused_wherever_it_would_be_read",
        ),
        "            if size > most:\n",
        "            if size > most and not message.get('more_body', False):\n",
    ),
    plant(
        "gate: an announced length is believed only when it has come",
        within(
            "server/http/gate.py",
            f"{GATE}a_body_that_is_announced_as_50_mb_is_refused_on_every_route_before_it_comes",
        ),
        "if announced is not None and announced > self._most:",
        "if announced is None:",
    ),
    plant(
        "gate: a loopback name without its port is ours",
        within("server/http/whereabouts.py", f"{GATE}a_foreign_host_reaches_no_route"),
        "            hosts |= _ways_to_say(own)\n            origins.add(own)\n        for url",
        "            hosts |= {*_ways_to_say(own), name}\n            origins.add(own)\n        for url",
    ),
    plant(
        "gate: null is an origin like others",
        within("server/http/whereabouts.py", f"{GATE}a_page_of_a_foreign_origin_reaches_no_route"),
        "return origin in self._origins",
        'return origin in self._origins or origin == b"null"',
    ),
    plant(
        "gate: a form may be sent when it is empty",
        within("server/http/gate.py", f"{GATE}a_body_that_a_form_could_send_reaches_no_route"),
        "    if given is None:\n        if announced == 0:\n            return\n",
        "    if announced == 0:\n        return\n    if given is None:\n        pass\n",
    ),
    plant(
        "gate: a planted cookie wins",
        within(
            "server/http/head.py",
            f"{GATE}without_a_good_credential_nothing_is_reached_and_nothing_is_told",
        ),
        "return values.pop() if len(values) == 1 else None",
        "return max(values, key=len) if values else None",
    ),
    plant(
        "gate: guesses are counted after the key was looked up",
        within(
            "server/http/doorman.py",
            f"{LIMITS}guessing_is_stopped_by_address_before_the_key_is_looked_up",
        ),
        "if digest not in self._known or self._has_failed(address):",
        "if digest not in self._known:",
    ),
    plant(
        "gate: an open request outlives its key",
        within(
            "server/http/open_requests.py",
            f"{LIMITS}the_streams_of_a_revoked_key_end_within_two_seconds_and_nobody_elses",
        ),
        '                    request.end("revoked")',
        "                    pass",
    ),
    plant(
        "gate: all streams end with one key",
        within(
            "server/http/open_requests.py",
            f"{LIMITS}the_streams_of_a_revoked_key_end_within_two_seconds_and_nobody_elses",
        ),
        "groups.setdefault(request.group, [])",
        'groups.setdefault("", [])',
    ),
    plant(
        "gate: what is being done is cut short when the server stops",
        within(
            "server/http/open_requests.py",
            f"{LIMITS}when_the_server_stops_streams_end_at_once_and_the_rest_is_answered",
        ),
        "            if request.is_listening:\n",
        "            if request:\n",
    ),
    plant(
        "gate: who is still sending keeps a server that stops",
        within(
            "server/http/gate.py",
            f"{LIMITS}who_is_still_sending_when_the_server_stops_is_told_so_at_once",
        ),
        "        request.is_listening = True  # nothing was begun",
        "        request.is_listening = False  # nothing was begun",
    ),
    plant(
        "serve: anybody may say where he comes from",
        within(
            "server/http/listening.py",
            f"{SERVE}a_forwarded_address_is_believed_only_where_something_is_in_front",
        ),
        "proxy_headers=bool(settings.public_urls),",
        "proxy_headers=True,",
    ),
    plant(
        "serve: a revoked key is enough to start",
        within("server/http/startup_checks.py", f"{SERVE}a_revoked_key_is_none"),
        "any(key.revoked_at is None for key in await access.keys())",
        "bool(await access.keys())",
    ),
    plant(
        "oauth: signatures are not looked at",
        within("server/http/oauth.py", f"{OAUTH}no_other_token_lets_in"),
        'options={"require": _REQUIRED},',
        'options={"verify_signature": False},',
    ),
    plant(
        "oauth: a token for anybody is one for us",
        within("server/http/oauth.py", f"{OAUTH}no_other_token_lets_in"),
        'options={"require": _REQUIRED},',
        'options={"require": _REQUIRED, "verify_aud": False},',
    ),
    plant(
        "oauth: every unknown key is asked for",
        within(
            "server/http/issuer_keys.py",
            f"{OAUTH}keys_are_fetched_once_and_for_unknown_ones_once_a_minute",
        ),
        "if time.monotonic() - self._tried_at > PAUSE_SECONDS:",
        "if time.monotonic() - self._tried_at > 0:",
    ),
    plant(
        "oauth: one key that is none spoils all others",
        within(
            "server/http/issuer_keys.py",
            f"{OAUTH}what_is_no_key_in_the_key_set_does_not_spoil_the_others",
        ),
        " and _is_name(name)",
        "",
    ),
)
