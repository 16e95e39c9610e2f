"""Pages of every kind against a plain list: filters, totals, cursors, while histories grow and old sessions go."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilt_mcp.state import (
    Claim,
    MessageQuery,
    Note,
    SessionNotFound,
    SessionStore,
    SqliteStore,
    StoreLocation,
    Variant,
)
from bilt_mcp.state.sqlite_pages import message_page

from .store_contract import ME, PLAN, PROCESS, ManualClock
from .store_model import new_store

LOOK = 6
"""So few that most histories of the search are longer."""
WORDS = ("Error: no", "ERROR", "straße", "STRASSE", "compiled", "", "%_", "e")
VARIANTS: tuple[Variant, ...] = ("info", "error", "success", "log")


@dataclass
class Told:
    """A message as the plain list has it."""

    id: int
    variant: Variant
    content: str
    workflow: str


@dataclass
class History:
    """A session, as whoever wrote it knows it."""

    session_id: str
    claim: Claim | None = None
    workflows: list[str] = field(default_factory=list[str])
    notes: list[Note] = field(default_factory=list[Note])


def placed(query: MessageQuery, mode: str, place: int) -> MessageQuery:
    """The same from another place; from the newest where `mode` is none of the three."""
    match mode:
        case "after":
            return replace(query, after=place)
        case "before":
            return replace(query, before=place)
        case "offset":
            return replace(query, offset=place)
        case _:
            return query


def chosen(told: Sequence[Told], query: MessageQuery) -> list[Told]:
    text = (query.text or "").casefold()
    return [
        one
        for one in told
        if query.variant in (None, one.variant)
        and query.workflow_id in (None, one.workflow)
        and text in one.content.casefold()
    ]


async def agree(
    store: SessionStore, session_id: str, told: Sequence[Told], query: MessageQuery
) -> None:
    """A page is what a plain list would give; where one look is not enough, all pages together are."""
    page = await store.messages(ME, session_id, query)
    all_of_them = [one.id for one in chosen(told, query)]
    assert page.newest_id == (told[-1].id if told else 0)
    assert page.counted == (not query.text or len(chosen(told, replace(query, text=None))) <= LOOK)
    if not page.counted:
        assert page.total <= len(all_of_them)
        assert await walked(store, session_id, query) == left_of(all_of_them, query)
        return
    rest = left_of(all_of_them, query)
    assert [message.id for message in page.messages] == rest[: query.limit]
    assert (page.total, page.has_more) == (len(all_of_them), len(rest) > query.limit)
    assert page.read_to is None
    by_id = {one.id: one for one in told}
    for message in page.messages:
        one = by_id[message.id]
        assert (message.variant, message.content) == (one.variant, one.content)
        assert message.workflow_id == one.workflow


def left_of(ids: Sequence[int], query: MessageQuery) -> list[int]:
    if query.after is not None:
        return [id_ for id_ in ids if id_ > query.after]
    back = list(reversed(ids))
    if query.before is not None:
        return [id_ for id_ in back if id_ < query.before]
    return back[query.offset :]


async def walked(store: SessionStore, session_id: str, query: MessageQuery) -> list[int]:
    """The ids of all pages, from this one on, by the cursors."""
    found: list[int] = []
    skipped = query.offset
    query = replace(query, offset=0)
    while True:
        page = await store.messages(ME, session_id, query)
        found += [message.id for message in page.messages]
        assert len(page.messages) <= query.limit
        if not page.has_more:
            return found[skipped:]
        last = page.messages[-1].id if page.read_to is None else page.read_to
        if query.after is not None:
            assert last > query.after, "it gets on"
            query = replace(query, after=last)
        else:
            assert last < (query.before or 2**60), "it gets on"
            query = replace(query, before=last)


class Writer:
    """Writes histories of a few sessions, and keeps what it wrote."""

    def __init__(self, store: SqliteStore, clock: ManualClock, sessions: Sequence[str]) -> None:
        self.store, self.clock = store, clock
        self.histories = [History(session_id) for session_id in sessions]
        self.epoch = 0

    async def begin(self, history: History) -> None:
        started = await self.store.start(ME, history.session_id, "go", PLAN)
        history.workflows.append(started.workflow_id)
        history.claim = await self.store.claim(self.epoch)

    async def say(self, history: History, notes: Sequence[Note]) -> None:
        if history.claim is None:
            await self.begin(history)
        assert history.claim is not None
        await self.store.note(history.claim, notes)
        history.notes += notes

    async def end(self, history: History) -> None:
        if history.claim is not None:
            assert await self.store.complete(history.claim, [Note("Error: no", "success")])
            history.claim = None

    async def prune(self, history: History) -> None:
        """Delete this session and no other."""
        if not history.workflows:
            return
        await self.end(history)
        self.clock.go_on(10)
        for other in self.histories:
            if other is not history and other.claim is None:
                await self.begin(other)  # what runs stays
        assert await self.store.hide_old(self.epoch, self.clock.now()) == 1
        while await self.store.delete_hidden(self.epoch):
            pass
        with pytest.raises(SessionNotFound):
            await self.store.messages(ME, history.session_id, MessageQuery())
        self.histories.remove(history)

    async def told(self, history: History) -> list[Told]:
        """What was written, with the ids that only the store knows."""
        page = await self.store.messages(ME, history.session_id, MessageQuery(limit=10**6, after=0))
        said = [message for message in page.messages if message.step == "build"]
        assert [message.content for message in said] == [note.content for note in history.notes]
        found = [
            Told(message.id, message.variant, message.content, message.workflow_id or "")
            for message in page.messages
        ]
        order = [history.workflows.index(one.workflow) for one in found]
        assert order == sorted(order), "the messages of a workflow follow one another"
        return found


NOTES = st.lists(
    st.builds(Note, st.sampled_from(WORDS), st.sampled_from(VARIANTS), st.just("build")), max_size=9
)
ACTS = st.lists(
    st.tuples(st.sampled_from(["say", "say", "end", "prune"]), st.integers(0, 1), NOTES),
    min_size=1,
    max_size=10,
)
ASKED = st.lists(
    st.tuples(
        st.sampled_from([None, *VARIANTS]),
        st.none() | st.integers(0, 3),
        st.sampled_from([None, "", *WORDS]),
        st.sampled_from(["offset", "after", "before"]),
        st.integers(0, 60),
        st.integers(1, 8),
    ),
    min_size=8,
    max_size=16,
)


Act = tuple[str, int, list[Note]]
Asked = tuple[Variant | None, int | None, str | None, str, int, int]


async def search(
    location: StoreLocation, sessions: Sequence[str], acts: Sequence[Act], asked: Sequence[Asked]
) -> None:
    clock = ManualClock()
    async with SqliteStore(location, clock) as store:
        writer = Writer(store, clock, sessions)
        writer.epoch = await store.take_over(PROCESS, "1")
        for act, which, notes in acts:
            if not writer.histories:
                break
            history = writer.histories[which % len(writer.histories)]
            if act == "say":
                await writer.say(history, notes)
            elif act == "end":
                await writer.end(history)
            else:
                await writer.prune(history)
        for history in writer.histories:
            told = await writer.told(history)
            for workflow_id in history.workflows:
                query = MessageQuery(limit=5, workflow_id=workflow_id)
                await agree(store, history.session_id, told, query)
            for variant, workflow, text, mode, place, limit in asked:
                query = MessageQuery(limit=limit, variant=variant, text=text)
                if workflow is not None and workflow < len(history.workflows):
                    query = replace(query, workflow_id=history.workflows[workflow])
                await agree(store, history.session_id, told, placed(query, mode, place))


@settings(max_examples=60, deadline=None)
@given(acts=ACTS, asked=ASKED)
def test_every_page_is_what_a_plain_list_would_give(acts: list[Act], asked: list[Asked]) -> None:
    file, sessions = new_store()
    with (
        tempfile.TemporaryDirectory(prefix="bilt-pages-") as folder,
        patch("bilt_mcp.state.sqlite_pages.LOOK", LOOK),
    ):
        location = StoreLocation.of(Path(folder) / "store")
        location.folder.mkdir(mode=0o700)
        location.database.write_bytes(file)
        asyncio.run(search(location, sessions, acts, asked))


# -- what one call costs ---------------------------------------------------------------------------

FEW, MANY = 2_000, 40_000


async def fill(location: StoreLocation, messages: int) -> tuple[str, str]:
    """Two sessions of four workflows and so many messages each, in turns; every fourth is an error.

    Returns the first session's id and its second workflow's.
    """
    async with SqliteStore(location) as store:
        epoch = await store.take_over(PROCESS, "1")
        sessions: list[str] = []
        for name in ("first", "second"):
            project = await store.open_project(ME, f"/srv/{name}", name)
            sessions.append((await store.latest_session(ME, project.id)).id)
        workflows: list[str] = []
        notes = [Note(f"line {n}", "log" if n % 4 else "error") for n in range(100)]
        for _ in range(4):
            claims: list[Claim] = []
            for session_id in sessions:
                started = await store.start(ME, session_id, "go", PLAN)
                workflows.append(started.workflow_id)
                claim = await store.claim(epoch)
                assert claim is not None
                claims.append(claim)
            for _ in range(messages // 400):
                for claim in claims:
                    await store.note(claim, notes)
            for claim in claims:
                assert await store.complete(claim, [])
    return sessions[0], workflows[2]


def steps_of(location: StoreLocation, session_id: str, query: MessageQuery) -> int:
    """How many instructions SQLite's machine takes for a page."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with contextlib.closing(sqlite3.connect(location.database)) as connection:
        connection.row_factory = sqlite3.Row
        connection.set_progress_handler(count, 1)
        message_page(connection, ME, session_id, query)
    return steps


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[StoreLocation, str, str]]:
    """A store with `FEW` messages and one with `MANY`."""
    found: dict[int, tuple[StoreLocation, str, str]] = {}
    for size in (FEW, MANY):
        location = StoreLocation.of(tmp_path_factory.mktemp("pages") / str(size))
        found[size] = (location, *asyncio.run(fill(location, size)))
    return found


@pytest.mark.parametrize("variant", [None, "log", "error"])
@pytest.mark.parametrize("text", [None, "LINE 8", "nowhere"])
@pytest.mark.parametrize("of_workflow", [False, True])
@pytest.mark.parametrize("place", ["newest", "after", "before", "offset"])
def test_a_page_takes_no_more_work_in_a_history_that_is_twenty_times_as_long(
    stores: dict[int, tuple[StoreLocation, str, str]],
    variant: Variant | None,
    text: str | None,
    of_workflow: bool,
    place: str,
) -> None:
    costs: list[int] = []
    for size, (location, session_id, workflow_id) in stores.items():
        query = MessageQuery(
            variant=variant, text=text, workflow_id=workflow_id if of_workflow else None
        )
        # Of the ids of both sessions, one in the first one's second workflow.
        query = placed(query, place, size // 50 if place == "offset" else int(0.8 * size))
        costs.append(steps_of(location, session_id, query))
    few, many = costs
    if text is not None:
        # Whatever else is asked for, a call looks at no more than it does when only a text is.
        location, session_id, _ = stores[FEW]
        plain = MessageQuery(text="nowhere")
        few = max(few, steps_of(location, session_id, plain))
    assert many <= 1.2 * few
