"""The chat's stream over HTTP (CONTRACT section 4): left and joined again, by many and for long."""

from __future__ import annotations

import contextlib
import signal
from contextlib import closing
from pathlib import Path

import anyio
import httpx2
import pytest

from bilt_mcp.engine import LocalEngine
from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import Caller, SqliteStore, StoreUnavailable
from bilt_mcp.state.driver import sqlite3

from .support.chat import (
    HELD,
    SKIPS,
    TWO,
    Event,
    Person,
    ids,
    person,
    shown,
)
from .support.chat import alice as alice
from .support.chat import alice_logged_in as alice_logged_in
from .support.chat import place as place
from .support.chat import server as server
from .support.chat import store as store
from .support.http import key_in, serve_process, serving
from .support.places import Place, open_place
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

ME = Caller("a test")


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
    alice: Person, place: Place, server: Listening
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
        await wait_until(lambda: len(server.site.requests) >= 50, "all have joined")
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

    heard: list[str] = []

    async def follow() -> None:
        async with alice.stream(thread) as events:
            async for event in events:
                heard.append(str(event))

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(follow)
        await wait_until(lambda: heard.count("token begun") == 40, "all are equally far")
        monkeypatch.setattr(SqliteStore, "timeline", counted)
        (place.project / "go").touch()
    # Apart they would have looked at least once each for the output, and once for the end.
    assert 0 < looks < 40


async def test_who_opens_the_stream_first_hears_of_the_message(
    alice: Person, place: Place, store: SqliteStore
) -> None:
    project = await store.open_project("local", str(place.project), place.project.name)
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


async def test_an_event_of_another_thread_is_none_of_this_one(alice: Person, place: Place) -> None:
    place.workflow(TWO)
    first = await alice.follow(await alice.queue())
    second = await alice.queue()
    params = {"thread_id": second, "last_event_id": str(first[0].id)}
    assert (await alice.http.get("/chat/stream", params=params)).status_code == 400
    await alice.follow(second)


async def test_a_stream_where_nothing_happens_says_that_it_is_still_there(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.server.http.chat_stream.KEEP_ALIVE_SECONDS", 0.2)
    thread = (await alice.say())["thread_id"]
    beats = 0
    with anyio.fail_after(20):
        async with alice.http.stream("GET", "/chat/stream", params={"thread_id": thread}) as got:
            assert got.headers["cache-control"] == "no-store"
            assert got.headers["x-accel-buffering"] == "no"
            async for line in got.aiter_lines():
                if line.startswith(":"):
                    beats += 1
                if beats == 3:
                    break
    await alice.told("/chat/cancel", {"thread_id": thread})


async def test_trouble_with_the_store_is_told_once_and_looked_over(
    alice: Person, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.server.http.chat_stream.TROUBLE_SECONDS", 0.02)
    failures = 0
    timeline = SqliteStore.timeline

    async def counted(*args: object, **more: object) -> object:
        nonlocal failures
        try:
            return await timeline(*args, **more)  # type: ignore[arg-type]
        except StoreUnavailable:
            failures += 1
            raise

    monkeypatch.setattr(SqliteStore, "timeline", counted)
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
                    await wait_until(lambda: failures >= 5, "it has looked again and again")
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
                async for event in events:
                    seen.append(event)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await wait_until(lambda: "node_start build" in shown(seen), "it is under way")
            listening.site.stopping.set()
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


async def test_one_login_holds_only_so_many_streams(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.server.http.chat_stream.MOST_STREAMS", 2)
    thread = (await alice.say())["thread_id"]
    async with alice.stream(thread) as first, alice.stream(thread) as second:
        assert (await anext(first)).id == (await anext(second)).id
        answer = await alice.http.get("/chat/stream", params={"thread_id": thread})
        assert (answer.status_code, answer.json()["error"]) == (429, "too_many_streams")
    await alice.told("/chat/cancel", {"thread_id": thread})
    await alice.follow(thread)


async def test_a_stream_where_nothing_happens_reads_nothing(
    alice: Person, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.workflow(HELD)
    thread = await alice.queue()
    monkeypatch.setattr("bilt_mcp.server.http.chat_stream.LOOK_AGAIN_SECONDS", 0.02)
    async with alice.stream(thread) as events:
        async for event in events:
            if event.data.get("content") == "begun":
                break

        looks = reads = 0
        timeline, wake = SqliteStore.timeline, LocalEngine.wake

        async def counted(*args: object, **more: object) -> object:
            nonlocal reads
            reads += 1
            return await timeline(*args, **more)  # type: ignore[arg-type]

        async def noted(engine: LocalEngine, *, news: bool = True) -> None:
            nonlocal looks
            looks += 1
            await wake(engine, news=news)

        async def reads_of(more: int) -> int:
            """How often it is read while a worker is looked for so many times."""
            before, enough = reads, looks + more
            await wait_until(lambda: looks >= enough, "it sees to a worker")
            return reads - before

        with monkeypatch.context() as patched:
            patched.setattr(SqliteStore, "timeline", counted)
            patched.setattr(LocalEngine, "wake", noted)
            for _ in range(20):  # at first the worker may still have something to say
                if await reads_of(10) == 0:
                    break
            else:
                raise AssertionError("it reads all the time")
        (place.project / "go").touch()
        assert [event.name async for event in events][-1] == "complete"


async def test_what_only_asks_for_the_head_is_answered_at_once(alice: Person) -> None:
    thread = (await alice.say())["thread_id"]
    answer = await alice.http.head("/chat/stream", params={"thread_id": thread})
    assert (answer.status_code, answer.content) == (200, b"")
    await alice.told("/chat/cancel", {"thread_id": thread})
