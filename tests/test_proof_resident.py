"""The resident is killed at random while clients ask: every request is answered once, and done at most once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import threading
import time

from bilt_mcp.state.driver import sqlite3

from .support.places import Place, residents
from .support.places import place as place  # a fixture
from .support.proof import Proof
from .support.rpc import HANDSHAKE, STATELESS, Json, Server, structured

ASKED = 12
"""Requests of a round."""
SLOW = '[[step]]\nname = "build"\nrun = "sleep 1000"\n'


class Killer:
    """Kills the resident of a place at random, for as long as a block runs."""

    def __init__(self, place: Place, draw: random.Random) -> None:
        self._place = place
        self._random = draw
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def _run(self) -> None:
        # The first one while it is at work, the next ones anywhere between their start and their work.
        wait = self._random.uniform(0.0, 0.03)
        while not self._over.wait(wait):
            for resident in residents(self._place.location):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(resident, signal.SIGKILL)
                    self.kills += 1
            wait = self._random.uniform(1.0, 6.0)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def ask_much(client: Server, session_id: str, draw: random.Random, name: str) -> dict[int, str]:
    """Send a round's requests without waiting; their ids, each with its message or nothing."""
    asked: dict[int, str] = {}
    for number in range(ASKED):
        kind = draw.choice(("start", "start", "cancel", "look", "read"))
        if kind == "start":
            message = f"{name}-{number}"
            sent = client.start_call("bilt_send_message", session_id=session_id, message=message)
            asked[sent] = message
            continue
        tool = {"cancel": "cancel_workflow", "look": "get_session", "read": "get_messages"}[kind]
        asked[client.start_call(f"bilt_{tool}", session_id=session_id)] = ""
    return asked


def test_every_request_is_answered_once_however_often_the_resident_is_killed(
    place: Place, proof: Proof
) -> None:
    place.workflow(SLOW)
    started: dict[str, Json] = {}
    refused: set[str] = set()
    waits: list[float] = []
    kills = 0
    for number in proof.rounds(6, 300):
        era = proof.random.choice((HANDSHAKE, STATELESS))
        client = Server(place.arguments, place.environ, era=era)
        with client:
            session_id = str(client.call("bilt_get_session")["session_id"])
            with Killer(place, random.Random(proof.random.random())) as killer:
                began = time.monotonic()
                asked = ask_much(client, session_id, proof.random, f"round-{number}")
                answers = {sent: structured(client.answer(sent)) for sent in asked}
                waits.append(time.monotonic() - began)
            kills += killer.kills
        for sent, message in asked.items():
            if message and "error" not in answers[sent]:
                started[message] = answers[sent]
            elif message:
                refused.add(message)
                assert answers[sent]["error"] == "Workflow already active", answers[sent]
        ids = [line for line in client.lines if b'"id":' in line.split(b'"result"')[0]]
        assert len(ids) == len(set(ids)), ids
        assert client.exit_code() == 0
    kept = messages_kept(place)
    assert sorted(kept) == sorted(started), "each start that was answered is there once, no other"
    assert refused.isdisjoint(kept)
    proof.figure(
        f"{kills} kills of the resident under {len(waits) * ASKED} requests: each answered once, "
        f"{len(started)} of {len(started)} starts there once; a round took "
        f"{statistics.median(waits):.1f} s in the middle, {max(waits):.1f} s at most"
    )


def messages_kept(place: Place) -> list[str]:
    """The message of every workflow in the store, read by no code of ours."""
    with contextlib.closing(sqlite3.connect(place.location.database)) as database:
        return [row[0] for row in database.execute("SELECT message FROM workflow")]
