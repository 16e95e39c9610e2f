"""Every verb of the SQLite store that writes is one transaction: what it does is there as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bilt_mcp.state import Caller, Note, SqliteStore

from .store_contract import BROKEN, GONE, ME, PROCESS, RECEIPT, Kind, Scene, Subject

pytestmark = pytest.mark.anyio

Verb = Callable[[SqliteStore, Subject, Scene], Awaitable[Any]]

VERBS: dict[str, tuple[Kind, Verb]] = {
    "start": (
        Kind.COMPLETED,
        lambda s, on, _: s.start(ME, on.session_id, "go", on.claim.plan, key="k"),
    ),
    "cancel what waits": (
        Kind.PENDING,
        lambda s, on, _: s.cancel(ME, on.session_id, None, Caller("me")),
    ),
    "cancel what runs": (
        Kind.RUNNING,
        lambda s, on, _: s.cancel(ME, on.session_id, None, Caller("me")),
    ),
    "cancel at a gate": (
        Kind.GATED,
        lambda s, on, _: s.cancel(ME, on.session_id, None, Caller("me")),
    ),
    "confirm": (
        Kind.GATED,
        lambda s, on, _: s.confirm(ME, on.session_id, on.action_id, Caller("me")),
    ),
    "decline": (
        Kind.GATED,
        lambda s, on, _: s.decline(ME, on.session_id, on.action_id, Caller("me")),
    ),
    "resume": (Kind.PAUSED, lambda s, on, _: s.resume(ME, on.session_id, Caller("me"))),
    "request_pause": (
        Kind.RUNNING,
        lambda s, on, _: s.request_pause(ME, on.session_id, Caller("me")),
    ),
    "pause": (Kind.RUNNING, lambda s, on, _: s.pause(on.claim, "Deploy it?")),
    "begin_step": (Kind.RUNNING, lambda s, on, _: s.begin_step(on.claim, 1, PROCESS)),
    "note": (Kind.RUNNING, lambda s, on, _: s.note(on.claim, [Note("a"), Note("b")], percent=5)),
    "complete": (Kind.RUNNING, lambda s, on, _: s.complete(on.claim, [Note("done")])),
    "fail": (Kind.RUNNING, lambda s, on, _: s.fail(on.claim, BROKEN, [Note("why")])),
    "stopped": (
        Kind.CANCELLING,
        lambda s, on, _: s.stopped(on.claim.epoch, on.workflow_id, RECEIPT, [Note("dead")]),
    ),
}


def traced(store: SqliteStore) -> list[str]:
    """Where transactions begin and end on the connection that writes, from now on."""
    found: list[str] = []

    def note(statement: str) -> None:
        word = statement.split(None, 1)[0].upper()
        if word in ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "END"):
            found.append(word)

    connection: Any = store._writer  # pyright: ignore[reportPrivateUsage]
    connection._conn.set_trace_callback(note)
    return found


@pytest.mark.parametrize("name", VERBS)
async def test_a_verb_that_writes_is_one_transaction(
    store: SqliteStore, scene: Scene, name: str
) -> None:
    kind, verb = VERBS[name]
    subject = await scene.subject(kind)
    found = traced(store)
    await verb(store, subject, scene)
    assert found == ["BEGIN", "COMMIT"]


async def test_what_is_lost_is_reported_in_one_transaction(
    store: SqliteStore, scene: Scene
) -> None:
    subject = await scene.subject(Kind.RUNNING)
    epoch = await store.take_over(PROCESS, "2")
    found = traced(store)
    assert await store.report_lost(epoch, subject.workflow_id, GONE, RECEIPT)
    assert found == ["BEGIN", "COMMIT"]
