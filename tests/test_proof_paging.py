"""Reading on while six processes write: each message exactly once, in order, and numbers that fit one another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

import anyio
import anyio.to_thread
import pytest

from bilt_mcp.state import Claim, MessageQuery, Note, Plan, PlannedStep, SqliteStore, Variant

from .store_contract import PROCESS
from .support.places import open_place
from .support.proof import Proof
from .support.racers import Call, Racers, Turn, racers_at
from .support.rpc import Server

pytestmark = pytest.mark.anyio

ACCOUNT = "local"
"""Whom the server takes its caller for."""
WRITERS = 6
PLAN = Plan((PlannedStep("build", {}),))
EVERYTHING = MessageQuery()
ERRORS = MessageQuery(variant="error")
Seen = tuple[int, str]


@dataclass
class Reader:
    """What somebody has read so far, and whether each page fits to it."""

    read: list[Seen] = field(default_factory=list[Seen])
    total: int = 0
    pages: int = 0

    @property
    def last(self) -> int:
        return self.read[-1][0] if self.read else 0

    def turn(self, page: Sequence[Seen], limit: int, total: int, has_more: bool) -> None:
        """Take a page that was asked for with `after=self.last`."""
        ids = [self.last, *(number for number, _ in page)]
        assert ids == sorted(set(ids)), "ids rise: nothing comes twice or late"
        assert len(page) <= limit
        assert total >= self.total, "no message goes"
        self.read += page
        self.total = total
        self.pages += 1
        assert has_more == (len(self.read) < total), "what is left is what has not been read"


async def follow(
    store: SqliteStore,
    session_id: str,
    done: Callable[[], bool],
    seed: float,
    asked: MessageQuery = EVERYTHING,
) -> Reader:
    """Read on through the store until nobody writes any more."""
    reader, draw = Reader(), random.Random(seed)
    while True:
        finished = done()
        seen = store.changes()
        limit = draw.choice([1, 7, 50, 100])
        query = replace(asked, limit=limit, after=reader.last)
        page = await store.messages(ACCOUNT, session_id, query)
        reader.turn([(m.id, m.content) for m in page.messages], limit, page.total, page.has_more)
        if not page.has_more:
            assert asked != EVERYTHING or page.newest_id == reader.last
            if finished:
                return reader
            await store.wait_change(seen, 1.0)


async def search(
    store: SqliteStore, session_id: str, done: Callable[[], bool], text: str
) -> list[Seen]:
    """Read on through those with a text, look by look."""
    found: list[Seen] = []
    after = 0
    while True:
        finished = done()
        seen = store.changes()
        query = MessageQuery(limit=20, after=after, variant="error", text=text)
        page = await store.messages(ACCOUNT, session_id, query)
        found += [(m.id, m.content) for m in page.messages]
        after = found[-1][0] if found else after
        if page.has_more:
            after = page.read_to or after
        elif finished:
            return found
        else:
            await store.wait_change(seen, 1.0)


def follow_by_tool(
    server: Server, session_id: str, done: Callable[[], bool], seed: float
) -> Reader:
    """Read on as an agent does, in answers of limited length."""
    reader, draw = Reader(), random.Random(seed)
    while True:
        finished = done()
        limit = draw.choice([20, 50, 100])
        asked = {"after": reader.last, "limit": limit, "max_chars": draw.choice([2000, 20_000])}
        page = server.call("bilt_get_messages", session_id=session_id, **asked)
        found = [(m["id"], m["content"]) for m in page["messages"]]
        reader.turn(found, limit, page["total"], page["has_more"])
        assert page["next_after"] == reader.last
        if finished and not page["has_more"]:
            return reader


def variant_of(content: str) -> Variant:
    """Every third message of a writer is an error."""
    return "log" if int(content.partition(".")[2]) % 3 else "error"


def turns_of(proof: Proof, claim: Claim, elsewhere: Claim) -> tuple[list[Turn], list[list[str]]]:
    """What each writer does, and what it then has written for `claim`."""
    share = proof.size(4800, long=100_000) // WRITERS
    turns: list[Turn] = []
    written: list[list[str]] = []
    for writer in range(WRITERS):
        mine = [f"{writer}.{number}" for number in range(share)]
        calls: list[Call] = []
        at = 0
        while at < share:
            count = proof.random.randint(1, 4)
            notes = [Note(content, variant_of(content)) for content in mine[at : at + count]]
            calls.append(
                Call("note", (claim, notes), {"wrote_output": proof.random.random() < 0.5})
            )
            at += count
            if proof.random.random() < 0.2:  # so that the ids of a session have gaps
                calls.append(Call("note", (elsewhere, [Note("of another session")])))
        turns.append(Turn(calls))
        written.append(mine)
    return turns, written


async def claimed(store: SqliteStore, epoch: int, root: Path) -> Claim:
    project = await store.open_project(ACCOUNT, str(root), "shop")
    session = await store.latest_session(ACCOUNT, project.id)
    await store.start(ACCOUNT, session.id, "go", PLAN)
    claim = await store.claim(epoch)
    assert claim is not None
    return claim


async def test_who_reads_on_while_six_processes_write_gets_each_message_once_and_in_order(
    quick_path: Path, proof: Proof
) -> None:
    done = Event()
    readers: list[Reader] = []
    errors: list[Reader] = []
    searched: list[list[Seen]] = []
    took: list[float] = []
    seeds = [proof.random.random() for _ in range(3)]

    def write(racers: Racers, turns: Sequence[Turn]) -> list[float]:
        try:
            said = racers.race(*turns)
        finally:
            done.set()
        assert all(one.answer is None for one in said)
        return sorted((one.ended - one.began) / 1e6 for one in said)

    async def read(store: SqliteStore, session_id: str, seed: float) -> None:
        readers.append(await follow(store, session_id, done.is_set, seed))

    async def read_some(store: SqliteStore, asked: MessageQuery, session_id: str) -> None:
        errors.append(await follow(store, session_id, done.is_set, seeds[0], asked))

    async def read_text(store: SqliteStore, session_id: str) -> None:
        searched.append(await search(store, session_id, done.is_set, "1."))

    async def read_by_tool(server: Server, session_id: str, seed: float) -> None:
        args = server, session_id, done.is_set, seed
        readers.append(await anyio.to_thread.run_sync(follow_by_tool, *args))

    with open_place(quick_path) as place:
        async with SqliteStore(place.location) as store, SqliteStore(place.location) as other:
            epoch = await store.take_over(PROCESS, "1")
            claim = await claimed(store, epoch, place.project)
            turns, written = turns_of(proof, claim, await claimed(store, epoch, quick_path))
            with (
                Server(place.arguments, place.environ) as server,
                racers_at(place.location, WRITERS) as racers,
            ):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read, store, claim.session_id, seeds[0])
                    tasks.start_soon(read, other, claim.session_id, seeds[1])
                    of_workflow = replace(ERRORS, workflow_id=claim.workflow_id)
                    tasks.start_soon(read_some, store, ERRORS, claim.session_id)
                    tasks.start_soon(read_some, other, of_workflow, claim.session_id)
                    tasks.start_soon(read_text, other, claim.session_id)
                    tasks.start_soon(read_by_tool, server, claim.session_id, seeds[2])
                    took += await anyio.to_thread.run_sync(write, racers, turns)
            query = MessageQuery(limit=10**6)
            page = await store.messages(ACCOUNT, claim.session_id, query)
    kept = [(m.id, m.content) for m in reversed(page.messages)]
    assert [reader.read == kept for reader in readers] == [True] * 3
    wrong = [seen for seen in kept[2:] if variant_of(seen[1]) == "error"]
    assert [reader.read == wrong for reader in errors] == [True] * 2
    assert searched == [[seen for seen in wrong if "1." in seen[1]]]
    contents = [content for _, content in kept[2:]]  # after what was asked and that it was accepted
    for writer, mine in enumerate(written):
        assert [words for words in contents if words.startswith(f"{writer}.")] == mine
    total = sum(map(len, written))
    assert (len(contents), page.total) == (total, total + 2)
    p50, p95, most = took[len(took) // 2], took[len(took) * 95 // 100], took[-1]
    proof.figure(
        f"{total} messages in {len(took)} writes by {WRITERS} processes; 3 readers in "
        f"{', '.join(str(reader.pages) for reader in readers)} pages, each message once and in order; a write took "
        f"p50 {p50:.1f}, p95 {p95:.1f}, at most {most:.0f} ms"
    )
