"""`bilt-mcp confirm`: where a person answers a gate, at a terminal."""

from __future__ import annotations

import os

from bilt_mcp.engine import LocalEngine
from bilt_mcp.state import BiltError, Caller, SqliteStore, StoreLocation
from bilt_mcp.tools import question

from .config import Config


async def confirm(config: Config, session_id: str | None) -> int:
    """Show the open gate of a session and ask the person at the terminal; 0 when it was answered.

    The answer is read from the terminal itself, not from standard input: an agent alone cannot approve.
    """
    location = StoreLocation.of(config.store)
    try:
        async with SqliteStore(location) as store:
            if session_id is None:
                root = config.project
                project = await store.open_project(config.account, str(root), root.name or "root")
                session = await store.latest_session(config.account, project.id)
            else:
                session = await store.session(config.account, session_id.lower())
            gate = session.pending_action
            if gate is None:
                print(f"Nothing waits for an answer in session {session.id} ({session.status}).")
                return 1
            asking = await store.project(config.account, session.project_id)
            said = _ask(f"{question(asking, session, gate)}\n\n")
            if said is None:
                print("A person must answer at a terminal; this process has none.")
                return 1
            user = os.environ.get("USER", "somebody")
            by = Caller(f"{user} at a terminal", "terminal", user)
            answer = store.confirm if said else store.decline
            workflow = await answer(config.account, session.id, gate.action_id, by)
            engine = LocalEngine(store, location, config.environ, config.worker_idle_seconds)
            if workflow.final:
                engine.forget(workflow.id)
            else:
                await engine.wake()
            print(f"Answered. The workflow is {workflow.status}.")
            return 0
    except BiltError as error:
        print(f"{error.error}: {error.message}")
        return 1


def _ask(question: str) -> bool | None:
    try:
        with open("/dev/tty", "w", encoding="utf-8") as screen:
            screen.write(question + 'Type "yes" to confirm, anything else declines: ')
        with open("/dev/tty", encoding="utf-8", errors="replace") as keyboard:
            return keyboard.readline().strip().lower() == "yes"
    except OSError:
        return None
