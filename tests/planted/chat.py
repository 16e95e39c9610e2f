"""Bugs to plant in the chat, its stream, and logins."""

from __future__ import annotations

from .plant import Plant, plant, within

PLANTS: tuple[Plant, ...] = (
    plant(
        "chat: a click that comes late answers the next question",
        within("server/http/chat.py", "test_chat_gates"),
        "        if gate is None or asked.action_id not in (None, gate.action_id):\n",
        "        if gate is None:\n",
    ),
    plant(
        "chat: an unknown thread is told from one where nothing waits",
        within("server/http/chat.py", "test_chat_gates"),
        "        except SessionNotFound:\n            raise nothing_pending() from None\n",
        "        except SessionNotFound:\n            raise\n",
    ),
    plant(
        "chat: a store that fails is told with its place",
        within("server/http/chat_requests.py", "test_chat"),
        '        raise Refused(500, code, f"{what}: {why}; error_id {error_id}") from error\n',
        '        raise Refused(500, code, f"{what}: {error.message}; error_id {error_id}") from error\n',
    ),
    plant(
        "chat: a stopping server keeps who waits",
        within("server/http/chat.py", "test_chat"),
        "await first_of(until_reached, until_gone, self._site.stopping.wait)",
        "await first_of(until_reached, until_gone)",
    ),
    plant(
        "chat: who has gone is waited for",
        within("server/http/chat.py", "test_chat"),
        "await first_of(until_reached, until_gone, self._site.stopping.wait)",
        "await first_of(until_reached, self._site.stopping.wait)",
    ),
    plant(
        "stream: who comes back hears the last event again",
        within("server/http/chat_events.py", "test_chat_rejoin"),
        "        if there > after\n",
        "        if there >= after\n",
    ),
    plant(
        "stream: output wakes nobody",
        within("state/sqlite_base.py", "test_store_timeline"),
        "    SELECT id, account, revision + coalesce(",
        "    SELECT id, account, revision + 0 * coalesce(",
    ),
    plant(
        "stream: each reads for himself",
        within("server/http/chat_stream.py", "test_chat_rejoin"),
        "        if reading is None:\n",
        "        if True:\n",
    ),
    plant(
        "stream: trouble with the store ends it",
        within("server/http/chat_stream.py", "test_chat_rejoin"),
        "                    await anyio.sleep(TROUBLE_SECONDS)\n                    continue\n",
        "                    return\n",
    ),
    plant(
        "stream: a question whose time is up stays open",
        within("server/http/chat_stream.py", "test_chat_stream"),
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
        within("server/http/login.py", "test_login"),
        "                httponly=True,\n                samesite",
        "                httponly=False,\n                samesite",
    ),
    plant(
        "login: a logout leaves the login",
        within("server/http/login.py", "test_login"),
        '        with told_as("logout_error", "Failed to log out"):\n            await self._end(request)\n',
        '        with told_as("logout_error", "Failed to log out"):\n',
    ),
    plant(
        "login: behind TLS the cookie may travel in the clear",
        within("server/http/login.py", "test_login"),
        '    if request.url.scheme == "https":\n        return True\n',
        "",
    ),
    plant(
        "login: a page that sends no origin is anybody's",
        within("server/http/gate.py", "test_login"),
        '            and head.get(b"sec-fetch-site") not in _SAME_PAGE\n',
        "            and False\n",
    ),
)
