"""The contract of a store: a session's messages, page by page."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from bilt_mcp.state import MessagePage, MessageQuery, Note, SessionStore

from .store_contract import ME, PLAN, Kind, ManualClock, Scene, Subject

pytestmark = pytest.mark.anyio


async def read(scene: Scene, subject: Subject, query: MessageQuery) -> MessagePage:
    return await scene.store.messages(ME, subject.session_id, query)


def contents(page: MessagePage) -> list[str]:
    return [message.content for message in page.messages]


async def noted(scene: Scene, *notes: Note) -> Subject:
    """A running workflow with these as its newest messages."""
    subject = await scene.subject(Kind.RUNNING)
    await scene.store.note(subject.claim, notes)
    return subject


async def test_a_message_comes_back_as_it_was_written(scene: Scene, clock: ManualClock) -> None:
    clock.go_on(5)
    text = "größer\n\t✓ 🚀 \x00 end"
    subject = await noted(scene, Note(text, "success", "build"))
    (message,) = (await read(scene, subject, MessageQuery(limit=1))).messages
    assert (message.content, message.variant, message.step) == (text, "success", "build")
    assert (message.side, message.workflow_id) == ("ai", subject.workflow_id)
    assert message.created_at == clock.wall


async def test_pages_go_from_the_newest_to_the_oldest(scene: Scene) -> None:
    subject = await noted(scene, *(Note(str(n)) for n in range(5)))
    everything = await read(scene, subject, MessageQuery(limit=100))
    assert contents(everything)[:5] == ["4", "3", "2", "1", "0"]
    total = len(everything.messages)
    assert (everything.total, everything.has_more) == (total, False)
    assert everything.newest_id == everything.messages[0].id
    for offset in range(total + 2):
        page = await read(scene, subject, MessageQuery(limit=2, offset=offset))
        assert page.messages == everything.messages[offset : offset + 2]
        assert (page.total, page.newest_id) == (total, everything.newest_id)
        assert page.has_more == (offset + 2 < total)


async def test_after_reads_on_from_a_message_oldest_first(scene: Scene) -> None:
    subject = await noted(scene, *(Note(str(n)) for n in range(5)))
    newest_first = (await read(scene, subject, MessageQuery(limit=100))).messages
    everything = tuple(reversed(newest_first))
    assert all(old.id < new.id for old, new in pairwise(everything))
    for at, message in enumerate(everything):
        page = await read(scene, subject, MessageQuery(limit=3, after=message.id))
        assert page.messages == everything[at + 1 : at + 4]
        assert page.has_more == (at + 4 < len(everything))
        assert (page.total, page.newest_id) == (len(everything), everything[-1].id)
    page = await read(scene, subject, MessageQuery(after=0, limit=100))
    assert page.messages == everything


async def test_an_idle_session_has_no_messages(scene: Scene) -> None:
    subject = await scene.subject(Kind.IDLE)
    empty = MessagePage((), total=0, has_more=False, newest_id=0)
    assert await read(scene, subject, MessageQuery()) == empty
    assert await read(scene, subject, MessageQuery(after=0)) == empty


async def test_a_session_shows_its_own_messages_only(scene: Scene) -> None:
    first = await noted(scene, Note("of the first"))
    second = await noted(scene, Note("of the second"))
    page = await read(scene, first, MessageQuery())
    assert "of the second" not in contents(page)
    assert page.newest_id < (await read(scene, second, MessageQuery())).messages[-1].id


async def test_filters_decide_what_is_counted_and_paged(scene: Scene) -> None:
    subject = await noted(
        scene,
        Note("first", "error"),
        Note("second", "log"),
        Note("third", "error"),
        Note("fourth", "error"),
    )
    errors = await read(scene, subject, MessageQuery(variant="error", limit=2))
    assert (contents(errors), errors.total, errors.has_more) == (["fourth", "third"], 3, True)
    rest = await read(scene, subject, MessageQuery(variant="error", limit=2, offset=2))
    assert (contents(rest), rest.total, rest.has_more) == (["first"], 3, False)
    onwards = await read(
        scene, subject, MessageQuery(variant="error", limit=1, after=rest.messages[0].id)
    )
    assert (contents(onwards), onwards.total, onwards.has_more) == (["third"], 3, True)
    both = await read(scene, subject, MessageQuery(variant="error", text="T"))
    assert (contents(both), both.total) == (["fourth", "third", "first"], 3)
    nothing = await read(scene, subject, MessageQuery(variant="success"))
    assert (nothing.messages, nothing.total, nothing.has_more) == ((), 0, False)
    assert nothing.newest_id == errors.newest_id, "filters do not hide that there is news"


async def test_messages_can_be_read_for_one_workflow_of_the_session(scene: Scene) -> None:
    subject = await scene.subject(Kind.COMPLETED)
    second = await scene.store.start(ME, subject.session_id, "again", PLAN)
    for workflow_id, words in ((subject.workflow_id, "go"), (second.workflow_id, "again")):
        page = await read(scene, subject, MessageQuery(workflow_id=workflow_id, after=0))
        assert {message.workflow_id for message in page.messages} == {workflow_id}
        assert page.messages[0].content == words
        assert page.total == len(page.messages)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("übersicht", True),
        ("ÜBERSICHT", True),
        ("STRASSE", True),
        ("straße", True),
        ("ΣΊΣΥΦΟΣ", True),
        ("100%", True),
        ("%", True),
        ("1_0", False),
        ("*", False),
        ("'", False),
        ("nowhere", False),
        ("", True),
    ],
)
async def test_a_text_is_looked_for_literally_and_without_regard_to_case(
    scene: Scene, text: str, found: bool
) -> None:
    subject = await noted(scene, Note("Übersicht der Straße: 100% σίσυφος"))
    page = await read(scene, subject, MessageQuery(text=text, limit=1))
    assert (page.total > 0) == found
    if found:
        assert contents(page) == ["Übersicht der Straße: 100% σίσυφος"]


async def test_who_reads_on_while_others_write_misses_nothing_and_sees_nothing_twice(
    scene: Scene, other: SessionStore, soak_factor: int
) -> None:
    subject = await scene.subject(Kind.RUNNING)
    rounds = 25 * soak_factor

    async def write(store: SessionStore, name: str) -> None:
        for number in range(rounds):
            notes = [Note(f"{name}.{number}.{part}") for part in range(number % 3 + 1)]
            await store.note(subject.claim, notes)

    async def follow(store: SessionStore) -> list[str]:
        seen: list[str] = []
        last, done = 0, False
        while True:
            query = MessageQuery(limit=7, after=last)
            page = await store.messages(ME, subject.session_id, query)
            seen += contents(page)
            last = page.messages[-1].id if page.messages else last
            if done and not page.messages:
                return seen
            done = writers.done()

    names = ((scene.store, "a"), (other, "b"), (scene.store, "c"))
    writers = asyncio.gather(*(write(store, name) for store, name in names))
    followed = await asyncio.gather(follow(scene.store), follow(other))
    await writers
    pages = await read(scene, subject, MessageQuery(limit=10**6, after=0))
    assert list(followed) == [contents(pages)] * 2
    assert pages.total == len(pages.messages)
    for name in "abc":
        own = [words for words in contents(pages) if words.startswith(f"{name}.")]
        assert own == [f"{name}.{n}.{part}" for n in range(rounds) for part in range(n % 3 + 1)]
