"""Many real processes on one store, and agents that book what they were told.

Servers, their worker and its keepers are the real ones. The ledger reads the store's file with no code of ours, and
holds it to everything that anybody was told.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process, TaskGroup

from bilt_mcp.state import iso
from bilt_mcp.state.driver import sqlite3

from .places import Place, residents
from .rpc import PATIENCE, Json, command, handshake, request, structured

START_PATIENCE = 90.0  # seconds: many may start at once, and each computes for a second or two
FINAL = ("cancelled", "completed", "failed")
STEPS = """
[[step]]
name = "build"
run = '''echo "$BILT_MESSAGE"; case "$BILT_MESSAGE" in *long*) sleep 1;; *) sleep 0.02;; esac'''
[[step]]
name = "test"
run = "echo tested"
"""


class Ledger:
    """What somebody was told, and whether the store still says so."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.acknowledged = 0
        self._accepted: dict[str, tuple[str, str]] = {}
        self._ended: dict[str, str] = {}
        self._receipts: dict[str, str | None] = {}
        self._final: dict[str, tuple[Any, ...]] = {}
        self._news: set[str] = set()
        self._from_start()

    def _from_start(self) -> None:
        self._last = 0
        self._ordinals: dict[str, int] = {}
        self._latest: dict[str, str] = {}
        self._found: dict[tuple[str, str], str] = {}

    def accepted(self, session: str, text: str, workflow: str) -> None:
        assert self._accepted.setdefault(workflow, (session, text)) == (session, text)
        self._news.add(workflow)

    def ended(self, workflow: str, status: str) -> None:
        assert self._ended.setdefault(workflow, status) == status, (workflow, status)
        self._news.add(workflow)

    def cancelled(self, workflow: str, at: str | None) -> None:
        self._receipts[workflow] = at
        self._news.add(workflow)

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with contextlib.closing(_open(self.database)) as file:
            return file.execute(sql, values).fetchall()

    def unfinished(self) -> list[str]:
        return [row["id"] for row in self.rows(f"SELECT id FROM workflow WHERE {NOT_FINAL}")]

    def check(self, *, whole: bool = False) -> None:
        """Everything that was told since the last check still holds; all that was ever told when `whole`."""
        news, self._news = self._news, set()
        self.acknowledged += len(news)
        if whole:
            news = {*self._accepted, *self._ended, *self._receipts}
            self._from_start()
        with contextlib.closing(_open(self.database)) as file:
            file.execute("BEGIN")
            for row in file.execute(_MESSAGES, (self._last,)).fetchall():
                self._next_message(row)
            chosen = "" if whole else f" WHERE id IN ({', '.join('?' * len(news))})"
            kept = file.execute(_WORKFLOWS + chosen, () if whole else tuple(news)).fetchall()
            if whole:
                for what, sql in HALF_DONE.items():
                    wrong = [tuple(row) for row in file.execute(sql).fetchall()]
                    assert not wrong, f"{what}: {wrong[:5]}"
                assert file.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
                assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        workflows = {row["id"]: row for row in kept}
        for workflow in news:
            assert workflow in workflows, f"lost: {workflow} {self._accepted.get(workflow)}"
            self._compare(workflow, workflows[workflow])
        for workflow, row in workflows.items():
            if row["status"] in FINAL:
                assert self._final.setdefault(workflow, tuple(row)) == tuple(row), tuple(row)

    def _next_message(self, row: sqlite3.Row) -> None:
        session, self._last = row["session"], row["id"]
        ordinal = self._ordinals.get(session, 0) + 1
        assert row["ordinal"] == ordinal, f"session {session}: no message {ordinal}"
        self._ordinals[session] = ordinal
        if row["side"] == "user":
            text, before = row["content"], self._latest.get(session, "")
            assert text > before, f"{text!r} came after {before!r}"
            self._latest[session] = text
            self._found[session, text] = row["workflow"]

    def _compare(self, workflow: str, row: sqlite3.Row) -> None:
        status, said = row["status"], f"workflow {workflow} is {row['status']}"
        if workflow in self._accepted:
            given = self._accepted[workflow]
            assert self._found.get(given) == workflow, f"lost: {given}"
        if workflow in self._ended:
            assert status == self._ended[workflow], f"{said}, was {self._ended[workflow]}"
        if workflow in self._receipts:
            at = self._receipts[workflow]
            assert status == "cancelled" or (status == "cancelling" and at is None), (
                f"{said}, and its cancel was acknowledged"
            )
            assert at in (None, iso(row["finished_at"] or 0)), f"{said}, not since {at}"


def _open(database: Path) -> sqlite3.Connection:
    file = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)
    file.row_factory = sqlite3.Row
    return file


NOT_FINAL = "status NOT IN ('cancelled', 'completed', 'failed')"
_MESSAGES = """SELECT m.id, s.id AS session, m.ordinal, m.side, m.content, w.id AS workflow
    FROM message AS m JOIN session AS s ON s.n = m.session LEFT JOIN workflow AS w ON w.n = m.workflow
    WHERE m.id > ? ORDER BY m.id"""
_WORKFLOWS = (
    "SELECT id, status, message, finished_at, failure, stopped, cancel_reason FROM workflow"
)
HALF_DONE = {
    "a workflow without its message, or with two": """SELECT w.id FROM workflow AS w
        LEFT JOIN message AS m ON m.workflow = w.n AND m.side = 'user' AND m.content = w.message
        GROUP BY w.n HAVING count(m.id) <> 1""",
    "a message of no workflow": "SELECT id FROM message WHERE workflow IS NULL",
    "ended without a last word": """SELECT w.id, w.status FROM workflow AS w
        LEFT JOIN message AS m ON m.workflow = w.n AND ((w.status = 'completed' AND m.content = 'Workflow completed.')
            OR (w.status = 'failed' AND m.variant = 'error')
            OR (w.status = 'cancelled' AND m.content LIKE 'Cancelled by %'))
        WHERE w.finished_at IS NOT NULL GROUP BY w.n HAVING count(m.id) <> 1""",
    "ended with a step under way": """SELECT w.id FROM workflow AS w JOIN step_run AS r
        ON r.workflow = w.n WHERE w.finished_at IS NOT NULL AND r.outcome IS NULL""",
    "completed without its steps": """SELECT w.id FROM workflow AS w LEFT JOIN step_run AS r
        ON r.workflow = w.n AND r.outcome = 'succeeded' WHERE w.status = 'completed'
        GROUP BY w.n HAVING count(r.name) <> w.total_steps""",
    "run by two workers": "SELECT workflow FROM step_run GROUP BY workflow HAVING count(DISTINCT epoch) > 1",
    "failed by itself": "SELECT id, failure FROM workflow WHERE json_extract(failure, '$.code') <> 'worker_lost'",
}
"""What must never be found in the store, whoever was killed: nothing here fails or pauses by itself."""


class Gone(Exception):
    """The server ended before it answered."""


class Caller:
    """A server process and the client at its other end; many calls may be under way at once."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.gone = False
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[anyio.Event, list[Json]]] = {}

    @classmethod
    async def start(cls, place: Place, tasks: TaskGroup) -> Caller:
        with (place.project.parent / "errors.log").open("ab") as errors:
            process = await anyio.open_process(
                command(*place.arguments), env=dict(place.environ), stderr=errors
            )
        caller = cls(process)
        try:
            tasks.start_soon(caller._listen)
            await caller._ask(0, handshake(), START_PATIENCE)
        except BaseException:
            caller.kill()
            await caller.close()
            raise
        return caller

    async def call(self, tool: str, **arguments: Any) -> Json:
        number = next(self._ids)
        params = {"name": tool, "arguments": arguments}
        return structured(await self._ask(number, request(number, "tools/call", params), PATIENCE))

    def kill(self) -> None:
        # Not the process's own kill(): on asyncio that competes with the watcher of children.
        if self.process.returncode is None:
            kill([self.process.pid])

    async def close(self) -> None:
        assert self.process.stdin is not None
        with anyio.CancelScope(shield=True):
            await self.process.stdin.aclose()
            with anyio.move_on_after(PATIENCE):
                await self.process.wait()
            self.kill()
            await self.process.aclose()

    async def _ask(self, number: int, line: bytes, patience: float) -> Json:
        event, found = self._waiting[number] = anyio.Event(), []
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send(line)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise Gone from None
        with anyio.move_on_after(patience):
            while not found and not self.gone:
                await event.wait()
        del self._waiting[number]
        if not found and self.gone:
            raise Gone
        assert found, f"no answer within {patience:g} s"
        return found[0]

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        async for line in lines(self.process.stdout):
            message: Json = json.loads(line)
            if message.get("id") in self._waiting:
                event, found = self._waiting[message["id"]]
                found.append(message)
                event.set()
        self.gone = True
        for event, _ in self._waiting.values():
            event.set()


async def lines(stream: Any) -> AsyncGenerator[bytes]:
    held = b""
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for part in stream:
            *whole, held = (held + part).split(b"\n")
            for line in whole:
                yield line


class Seat:
    """A place for a server: whoever wants to call waits until one is there."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.caller: Caller | None = None
        self._seated = anyio.Event()

    async def present(self) -> Caller:
        while self.caller is None:
            await self._seated.wait()
        return self.caller

    async def fill(self, tasks: TaskGroup) -> Caller:
        self.caller = await Caller.start(self.place, tasks)
        self._seated.set()
        return self.caller

    def leave(self) -> Caller | None:
        left, self.caller = self.caller, None
        if left is not None:
            self._seated = anyio.Event()
        return left


@dataclass
class Agent:
    """A client that sends, watches, cancels and reads in a session of its own, and books every answer."""

    name: str
    seat: Seat
    session: str
    ledger: Ledger
    random: random.Random
    timed: Callable[[str, float, Json], None] = lambda tool, seconds, answer: None
    turns: int = 0
    read: list[str] = field(default_factory=list[str])
    _number: int = 0
    _after: int = 0

    async def turn(self) -> None:
        await self._until_over()
        self._number += 1
        drawn = self.random.random()
        text = f"{self.name} {self._number:07d}{' long' if drawn < 0.15 else ''}"
        started = await self._send(text)
        assert "error" not in started, started
        self.ledger.accepted(self.session, text, started["workflow_id"])
        with contextlib.suppress(Gone):
            if drawn < 0.5:
                await anyio.sleep(self.random.choice((0.0, 0.1 * self.random.random())))
                await self._cancel(started["workflow_id"])
            else:
                await self._until_over()
            await self._read_on(text)
            self.turns += 1

    async def _call(self, tool: str, **arguments: Any) -> Json:
        caller = await self.seat.present()
        began = time.monotonic()
        answer = await caller.call(tool, session_id=self.session, **arguments)
        self.timed(tool, time.monotonic() - began, answer)
        return answer

    async def _send(self, text: str) -> Json:
        while True:  # the key makes it one message, however often it is sent
            with contextlib.suppress(Gone):
                return await self._call("bilt_send_message", message=text, idempotency_key=text)

    async def _cancel(self, workflow: str) -> None:
        answer = await self._call("bilt_cancel_workflow", reason="enough")
        if "error" in answer:
            assert answer["error"] == "Cannot cancel workflow", answer
            self.ledger.ended(workflow, answer["details"]["current_status"])
        else:
            self.ledger.cancelled(
                workflow, answer["cancelled_at"] if answer["stopped"]["verified"] else None
            )

    async def _until_over(self) -> None:
        while True:
            try:
                answer = await self._call("bilt_get_session", wait_seconds=0.5)
            except Gone:
                continue
            assert "error" not in answer, answer
            if answer["status"] in FINAL:
                self.ledger.ended(answer["workflow_id"], answer["status"])
            if answer["status"] in (*FINAL, "idle"):
                return

    async def _read_on(self, text: str) -> None:
        more = True
        while more:
            page = await self._call("bilt_get_messages", after=self._after, limit=100)
            assert "error" not in page, page
            self.read += [m["content"] for m in page["messages"] if m["side"] == "user"]
            self._after, more = page["next_after"], page["has_more"]
        assert self.read[-1:] == [text], f"{text!r} was accepted and is not the last of {self.read}"


def workers(database: Path) -> list[int]:
    """The store's workers that live: one, or none, or one more that is still starting."""
    given = os.fsencode(database)
    return [
        pid
        for pid in numbers()
        if given in (words := read(pid, "cmdline").split(b"\0"))
        and b"bilt_mcp.engine.worker" in words
    ]


def numbers() -> list[int]:
    return list(map(int, filter(str.isdigit, os.listdir("/proc"))))


def read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def dismiss(place: Place) -> None:
    """Send every worker of the store away, also one that a keeper has just started: nothing of the place is left."""
    deadline = time.monotonic() + 20
    home = b"HOME=" + os.fsencode(place.environ["HOME"])
    while left := [n for n in numbers() if home in read(n, "environ").split(b"\0")]:
        if time.monotonic() > deadline:
            kill(left)
            raise AssertionError(f"left although everything was sent away: {left}")
        kill(workers(place.location.database) + residents(place.location), signal.SIGTERM)
        await anyio.sleep(0.05)


def neighbour(place: Place, name: str, resident: bool = True) -> Place:
    folder = place.project.parent / name
    folder.mkdir()
    environ = {**place.environ, "BILT_RESIDENT": "1" if resident else "0"}
    found = replace(place, project=folder, environ=environ)
    found.workflow(STEPS)
    return found
