"""The chat's stream over HTTP (CONTRACT section 4): live, complete, and to be left and joined again."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import anyio
import httpx2
import pytest

from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import Caller, SqliteStore
from bilt_mcp.state.driver import sqlite3

from .support.chat import ASKS, SKIPS, Event, Person, gather, logged_in, person
from .support.http import key_in, serve_process, serving
from .support.places import Place, open_place, signal_worker, worker_of

pytestmark = pytest.mark.anyio

NOWHERE = "7d3fcd2c-5b5f-4c5e-8a7b-0123456789ab"
ME = Caller("a test")
HELD = '[[step]]\nname = "build"\nrun = "echo begun; until [ -e go ]; do sleep 0.02; done; echo done"\n'
"""A step that goes on when it may."""
TWO = '[[step]]\nname = "a"\nrun = "echo one"\n[[step]]\nname = "b"\nrun = "echo two"\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("stream")) as found:
        yield found


@pytest.fixture(scope="module")
async def server(place: Place) -> AsyncIterator[Listening]:
    async with serving(place.config(), HttpSettings(login_rate=0)) as listening:
        yield listening


@pytest.fixture
async def alice(server: Listening, place: Place) -> AsyncIterator[Person]:
    place.workflow(ASKS)
    (place.project / "go").unlink(missing_ok=True)
    async with logged_in(server.url, place, "alice") as someone:
        yield someone


@pytest.fixture
async def store(place: Place) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(place.location) as opened:
        yield opened


def shown(events: list[Event]) -> list[str]:
    return [str(event) for event in events]


def ids(events: list[Event]) -> list[str | None]:
    return [event.id for event in events]


async def test_everything_is_told_in_its_order_up_to_the_end(alice: Person) -> None:
    thread = await alice.queue("go")
    asked = await alice.until(thread, "confirmation_required")
    assert asked[-1].data == {
        "thread_id": thread,
        "message": "Deploy it?",
        "action_id": asked[-1].data["action_id"],
        "node": "deploy",
        "step": 2,
        "expires_at": None,
        "open": True,
    }
    await alice.told("/chat/confirm", {"thread_id": thread})
    events = await alice.follow(thread)
    told = [line for line in shown(events) if "accepted" not in line and "confirmed" not in line]
    assert told == [
        "token go",
        "node_start build",
        "token one\ntwo",
        "node_end build",
        "token Waiting for a person before step deploy: Deploy it?",
        "confirmation_required deploy",
        "node_start deploy",
        "token gone live",
        "node_end deploy",
        "token Workflow completed.",
        "complete completed",
    ]
    assert len(set(ids(events))) == len(events)
    assert ids(asked) == ids(events)[: len(asked)]
    assert {event.data["thread_id"] for event in events} == {thread}
    times = [event.body["timestamp"] for event in events]
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", when) for when in times)
    assert events[-1].data["response"] == "Done: build, deploy succeeded."


async def test_how_a_step_ended_is_told(alice: Person, place: Place) -> None:
    place.workflow(
        '[[step]]\nname = "a"\nrun = "test -e twice || { touch twice; exit 4; }"\nretries = 1\n'
    )
    events = await alice.follow(await alice.queue())
    ends = [event.data for event in events if event.name == "node_end"]
    assert [(end["attempt"], end["ok"], end["exit_code"]) for end in ends] == [
        (1, False, 4),
        (2, True, 0),
    ]


async def test_a_workflow_that_fails_is_told_as_an_error_and_then_as_complete(
    alice: Person, place: Place
) -> None:
    place.workflow('[[step]]\nname = "a"\nrun = "echo why; exit 3"\n')
    thread = await alice.queue()
    events = await alice.follow(thread)
    assert [event.name for event in events[-2:]] == ["error", "complete"]
    assert events[-2].data["code"] == "step_failed"
    assert events[-2].data["message"] == "Step a failed with exit code 3."
    assert events[-1].data["status"] == "failed"
    # Between the two somebody may leave, too.
    assert shown(await alice.follow(thread, events[-2].id)) == ["complete failed"]


async def test_from_each_event_on_exactly_the_rest_is_told(alice: Person, place: Place) -> None:
    place.workflow(SKIPS)
    thread = await alice.queue()
    await alice.until(thread, "confirmation_required")
    await alice.told("/chat/cancel", {"thread_id": thread})
    events = await alice.follow(thread)
    assert len(events) > 12
    for number, event in enumerate(events[:-1]):
        assert ids(await alice.follow(thread, event.id)) == ids(events[number + 1 :])
        assert event.id is not None
    in_the_address = await alice.follow(thread, last_event_id=str(events[2].id))
    assert ids(in_the_address) == ids(events[3:])
    # A browser that comes back says more recent things by the header.
    both = await alice.follow(thread, events[5].id, last_event_id=str(events[2].id))
    assert ids(both) == ids(events[6:])


async def test_behind_the_last_event_there_is_nothing_until_there_is_more(
    alice: Person, place: Place
) -> None:
    place.workflow(TWO)
    thread = await alice.queue()
    last = (await alice.follow(thread))[-1].id
    assert last is not None
    answer = await alice.http.get(
        "/chat/stream", params={"thread_id": thread}, headers={"Last-Event-ID": last}
    )
    assert (answer.status_code, answer.content) == (204, b""), "a browser then stays away"
    await alice.queue("again", thread_id=thread)
    events = await alice.follow(thread, last)
    assert shown(events)[0] == "token again"
    assert shown(events)[-1] == "complete completed"


async def test_all_who_follow_get_everything_whenever_they_joined(
    alice: Person, place: Place
) -> None:
    place.workflow(HELD)
    thread = await alice.queue()
    seen: list[list[Event]] = []

    async def follow() -> None:
        seen.append(await alice.follow(thread))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(follow)
            if number == 25:
                await alice.until(thread, "node_start")
        await anyio.sleep(0.2)
        (place.project / "go").touch()
    assert len(seen) == 50
    whole = await alice.follow(thread)
    assert "token done" in shown(whole)
    assert all(ids(events) == ids(whole) for events in seen)


async def test_one_reads_for_all_who_are_equally_far(
    alice: Person, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.workflow(HELD)
    thread = await alice.queue()
    await alice.until(thread, "node_start")
    looks = 0
    timeline = SqliteStore.timeline

    async def counted(*args: object, **more: object) -> object:
        nonlocal looks
        looks += 1
        return await timeline(*args, **more)  # type: ignore[arg-type]

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(alice.follow, thread)
        await anyio.sleep(0.5)
        monkeypatch.setattr(SqliteStore, "timeline", counted)
        (place.project / "go").touch()
    # Apart they would have looked at least once each for the output, and once for the end.
    assert 0 < looks < 40


async def test_who_opens_the_stream_first_hears_of_the_message(
    alice: Person, store: SqliteStore
) -> None:
    project = (await store.projects("local"))[0]
    thread = (await store.new_session("local", project.id)).id
    async with alice.stream(thread) as events:
        await alice.queue("at last", thread_id=thread)
        with anyio.fail_after(20):
            assert str(await anext(events)) == "token at last"
    await alice.until(thread, "confirmation_required")
    await alice.told("/chat/cancel", {"thread_id": thread})


async def test_who_wants_no_past_hears_only_what_comes(alice: Person, place: Place) -> None:
    place.workflow(HELD)
    thread = await alice.queue()
    begun = await alice.until(thread, "node_start")
    with anyio.fail_after(20):
        async with alice.stream(thread, **{"from": "now"}) as events:
            (place.project / "go").touch()
            rest = [event async for event in events]
    assert shown(rest)[-1] == "complete completed"
    assert not set(ids(begun)) & set(ids(rest))
    # And behind a workflow that is over, the next one.
    async with alice.stream(thread, **{"from": "now"}) as events:
        await alice.queue("next", thread_id=thread)
        with anyio.fail_after(20):
            assert str(await anext(events)) == "token next"
    await alice.follow(thread)


async def test_what_a_cancel_stops_is_told(alice: Person, place: Place, store: SqliteStore) -> None:
    place.workflow(HELD)
    thread = await alice.queue()
    await alice.until(thread, "node_start")
    await store.cancel("local", thread, "no longer needed", ME)
    events = await alice.follow(thread)
    (end,) = [event.data for event in events if event.name == "node_end"]
    assert (end["ok"], end["outcome"]) == (False, "stopped")
    assert events[-1].data["status"] == "cancelled"


async def test_a_worker_that_is_killed_is_told_of(alice: Person, place: Place) -> None:
    place.workflow(HELD)
    thread = await alice.queue()
    await alice.until(thread, "node_start")
    worker = worker_of(place.location.database)
    assert worker is not None
    signal_worker(worker, signal.SIGKILL)
    events = await alice.follow(thread)
    assert [event.name for event in events[-4:]] == ["node_end", "token", "error", "complete"]
    assert events[-2].data["code"] == "worker_lost"


async def test_a_question_whose_time_is_up_ends_the_stream_by_itself(
    alice: Person, place: Place
) -> None:
    place.workflow(ASKS + "confirm_timeout = 0.5\n")
    thread = await alice.queue()
    events = await alice.follow(thread)
    (asked,) = [event.data for event in events if event.name == "confirmation_required"]
    assert asked["expires_at"] is not None
    assert events[-1].data["status"] == "cancelled"


async def test_output_that_looks_like_events_is_text(alice: Person, place: Place) -> None:
    forged = r"""run = 'printf "\n\nid: 9\nevent: complete\ndata: {}\n\n\033[2J\r\nend"'"""
    place.workflow(f'[[step]]\nname = "a"\n{forged}\n')
    events = await alice.follow(await alice.queue())
    assert [event.name for event in events].count("complete") == 1
    (text,) = [
        event.data for event in events if event.data.get("node") == "a" and "content" in event.data
    ]
    assert "event: complete" in text["content"]
    assert "\033" not in text["content"]
    assert text["untrusted"] is True


@pytest.mark.parametrize("thread", [NOWHERE, "thread_xyz789", "a" * 300])
async def test_a_thread_that_is_not_there_has_no_stream(alice: Person, thread: str) -> None:
    answer = await alice.http.get("/chat/stream", params={"thread_id": thread})
    assert (answer.status_code, answer.json()["error"]) == (404, "thread_not_found")


async def test_a_thread_of_somebody_else_is_none(
    alice: Person, server: Listening, place: Place
) -> None:
    thread = (await alice.say())["thread_id"]
    nowhere = await alice.http.get("/chat/stream", params={"thread_id": NOWHERE})
    async with logged_in(server.url, place, "eve", "another") as eve:
        answer = await eve.http.get("/chat/stream", params={"thread_id": thread})
        assert (answer.status_code, answer.json()) == (404, nowhere.json())
    await alice.told("/chat/cancel", {"thread_id": thread})


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"thread_id": ""},
        {"from": "yesterday"},
        {"last_event_id": "x"},
        {"last_event_id": "1-2"},
        {"last_event_id": "-1"},
        {"last_event_id": "9" * 18},
        {"last_event_id": "9" * 5000},
        {"last_event_id": "1-999999999-999999999-9\n"},
        {"last_event_id": "\N{ARABIC-INDIC DIGIT ONE}"},
    ],
    ids=lambda query: str(query)[:40],
)
async def test_a_stream_that_cannot_be_is_refused(alice: Person, query: dict[str, str]) -> None:
    thread = await alice.queue() if query and "thread_id" not in query else None
    params = query if thread is None else {"thread_id": thread, **query}
    answer = await alice.http.get("/chat/stream", params=params)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    if thread:
        await alice.until(thread, "confirmation_required")
        await alice.told("/chat/cancel", {"thread_id": thread})


async def test_an_event_of_another_thread_is_none_of_this_one(alice: Person, place: Place) -> None:
    place.workflow(TWO)
    first = await alice.follow(await alice.queue())
    second = await alice.queue()
    params = {"thread_id": second, "last_event_id": str(first[0].id)}
    assert (await alice.http.get("/chat/stream", params=params)).status_code == 400
    await alice.follow(second)


async def test_a_line_is_told_soon_after_it_was_said(alice: Person, place: Place) -> None:
    """Far above what it takes (`bench/chat.py` has the figures), far below what a look by chance would."""
    place.workflow(HELD)
    thread = await alice.queue()
    async with alice.stream(thread) as events:
        with anyio.fail_after(20):
            async for event in events:
                if event.data.get("content") == "begun":
                    said = datetime.fromisoformat(event.body["timestamp"]).timestamp()
                    assert time.time() - said < 1.0
                    break
        (place.project / "go").touch()
    await alice.follow(thread)


async def test_a_stream_where_nothing_happens_says_that_it_is_still_there(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.server.http.chat_stream.KEEP_ALIVE_SECONDS", 0.2)
    monkeypatch.setattr("bilt_mcp.server.http.chat_stream.LOOK_AGAIN_SECONDS", 0.1)
    thread = (await alice.say())["thread_id"]
    beats: list[float] = []
    with anyio.fail_after(20):
        async with alice.http.stream("GET", "/chat/stream", params={"thread_id": thread}) as got:
            assert got.headers["cache-control"] == "no-store"
            assert got.headers["x-accel-buffering"] == "no"
            async for line in got.aiter_lines():
                if line.startswith(":"):
                    beats.append(time.monotonic())
                if len(beats) == 3:
                    break
    await alice.told("/chat/cancel", {"thread_id": thread})


async def test_trouble_with_the_store_is_told_once_and_looked_over(
    alice: Person, place: Place
) -> None:
    thread = (await alice.say())["thread_id"]
    seen: list[Event] = []
    with closing(sqlite3.connect(place.location.database, isolation_level=None)) as database:
        with anyio.fail_after(30):
            async with alice.stream(thread) as events:
                while not seen or seen[-1].name != "confirmation_required":
                    seen.append(await anext(events))
                database.execute("ALTER TABLE gate RENAME TO gone")
                database.execute("UPDATE session SET revision = revision + 1")
                try:
                    seen.append(await anext(events))
                    trouble = seen.pop()
                    await anyio.sleep(1.2)
                finally:
                    database.execute("ALTER TABLE gone RENAME TO gate")
                await alice.told("/chat/cancel", {"thread_id": thread})
                seen += [event async for event in events]
    assert (trouble.name, trouble.id) == ("error", None)
    assert str(place.store) not in str(trouble.body)
    assert trouble.data["error_id"]
    assert ids(seen) == ids(await alice.follow(thread))


async def test_who_comes_back_after_the_server_stopped_goes_on_where_he_was(place: Place) -> None:
    place.workflow(HELD)
    (place.project / "go").unlink(missing_ok=True)
    settings = HttpSettings(no_auth=True)
    seen: list[Event] = []
    async with serving(place.config(), settings) as listening, person(listening.url) as anybody:
        thread = await anybody.queue()
        await anybody.until(thread, "node_start")

        async def follow() -> None:
            async with anybody.stream(thread) as events:
                seen.extend([event async for event in events])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.sleep(0.3)
            listening.site.stopping.set()
    assert "node_start build" in shown(seen)
    assert seen[-1].name != "complete"
    (place.project / "go").touch()
    async with serving(place.config(), settings) as listening, person(listening.url) as anybody:
        seen += await anybody.follow(thread, seen[-1].id)
        assert ids(seen) == ids(await anybody.follow(thread))


async def test_who_comes_back_after_a_kill_of_the_server_goes_on_where_he_was(
    tmp_path: Path,
) -> None:
    with open_place(tmp_path) as place:
        place.workflow(HELD)
        key = await key_in(place.config())
        with serve_process(place.arguments, place.environ) as first:
            async with person(first.url) as alice:
                await alice.told("/auth/login", {"key": key})
                thread = await alice.queue()
                seen = await alice.until(thread, "node_start")
                cookies = dict(alice.http.cookies)
                async with alice.stream(thread, seen[-1].id) as events:
                    first.stop(signal.SIGKILL)
                    with anyio.fail_after(20):
                        with contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
                            seen += [event async for event in events]
        (place.project / "go").touch()
        with serve_process(place.arguments, place.environ) as second:
            async with person(second.url, cookies) as alice:
                seen += await alice.follow(thread, seen[-1].id)
                assert ids(seen) == ids(await alice.follow(thread))
                assert shown(seen)[-1] == "complete completed"
                await gather(*(alice.follow(thread, event.id) for event in seen[:-1]))
