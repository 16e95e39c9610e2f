"""Live updates: who listens is told of every change, from any process; and only of what is his."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError

from bilt_mcp.server import create_server, live
from bilt_mcp.server.app import OpenStores
from bilt_mcp.state import SqliteStore, StoreUnavailable

from .support.agents import AGENT, UNKNOWN, Agent, Hand, StillEngine, agent_at
from .support.agents import agent as agent  # a fixture, like the next two
from .support.agents import hand as hand
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

PROMPT_SECONDS = 30.0


class Told:
    """A client of the era with a handshake, and the resources that it was told of."""

    def __init__(self) -> None:
        self.uris: list[str] = []

    async def __call__(self, message: Any) -> None:
        if getattr(message, "method", "") == "notifications/resources/updated":
            self.uris.append(message.params.uri)


@asynccontextmanager
async def modern(place: Place, account: str = "local") -> AsyncGenerator[Agent]:
    async with agent_at(place, account, "auto") as found:
        yield found


async def subscribe(client: Client, uri: str) -> None:
    # Deprecated for what is new; older clients do it.
    await client.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]


async def unsubscribe(client: Client, uri: str) -> None:
    await client.unsubscribe_resource(uri)  # pyright: ignore[reportDeprecated]


async def updates(subscription: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """The events up to one that is wanted."""
    found: list[Any] = []
    with anyio.fail_after(PROMPT_SECONDS):
        async for event in subscription:
            found.append(event)
            if wanted(event):
                return found
    raise AssertionError(f"the stream ended after {found}")


async def test_one_who_listens_is_told_of_a_change_by_another_process(
    place: Place, agent: Agent, hand: Hand
) -> None:
    async with modern(place) as listener:
        session_id = await listener.session_id()
        uri = f"bilt://sessions/{session_id}"
        async with listener.client.listen(resource_subscriptions=[uri]) as stream:
            assert stream.honored.resource_subscriptions == [uri]
            _, workflow_id = await agent.start()
            assert await updates(stream, lambda _: True) == [ResourceUpdated(uri)]
        workflow = f"bilt://workflows/{workflow_id}"
        async with listener.client.listen(resource_subscriptions=[uri, workflow]) as stream:
            claim = await hand.claim()
            await updates(stream, lambda event: event == ResourceUpdated(workflow))
            await hand.do_step(claim)
            await hand.complete(claim)
            while True:
                await updates(stream, lambda event: event == ResourceUpdated(workflow))
                read = await listener.client.read_resource(workflow)
                if '"completed"' in str(read.contents[0]):
                    break


async def test_nobody_is_told_of_what_did_not_change(
    place: Place, agent: Agent, hand: Hand
) -> None:
    session_id, first = await agent.start()
    claim = await hand.claim()
    await hand.do_step(claim)
    await hand.complete(claim)
    old = f"bilt://workflows/{first}"
    session = f"bilt://sessions/{session_id}"
    async with (
        modern(place) as listener,
        listener.client.listen(resource_subscriptions=[old, session]) as stream,
    ):
        _, second = await agent.start()
        claim = await hand.claim()
        await hand.say(claim, "output is a message, and changes neither")
        await hand.complete(claim)
        found = await updates(stream, lambda _: True)
        with anyio.move_on_after(0.2):
            async for event in stream:
                found.append(event)
        assert set(found) == {ResourceUpdated(session)}
        assert second != first


async def test_the_log_of_a_step_is_told_of_when_its_file_changes(
    place: Place, agent: Agent, hand: Hand
) -> None:
    _, workflow_id = await agent.start()
    claim = await hand.claim()
    await hand.begin(claim)
    uri = f"bilt://workflows/{workflow_id}/steps/build/log"
    async with (
        modern(place) as listener,
        listener.client.listen(resource_subscriptions=[uri]) as stream,
    ):
        (place.location.run(workflow_id) / "01.1.head").write_text("said\n")
        await hand.say(claim, "said")
        assert await updates(stream, lambda _: True) == [ResourceUpdated(uri)]


async def test_only_what_one_may_read_is_listened_to_and_why_not_is_not_told(
    place: Place, agent: Agent, hand: Hand
) -> None:
    session_id, workflow_id = await agent.start()
    mine = f"bilt://sessions/{session_id}"
    refused = [
        f"bilt://sessions/{UNKNOWN}",
        f"bilt://workflows/{UNKNOWN}",
        "bilt://sessions/s-1",
        "file:///etc/passwd",
        f"bilt://workflows/{workflow_id}/artifacts",
        f"bilt://workflows/{workflow_id}/steps/build/log",
        "",
    ]
    async with (
        modern(place) as listener,
        listener.client.listen(resource_subscriptions=[*refused, mine, mine]) as stream,
    ):
        assert stream.honored.resource_subscriptions == [mine]
    async with (
        modern(place, "somebody else") as other,
        other.client.listen(
            resource_subscriptions=[mine, f"bilt://workflows/{workflow_id}"]
        ) as stream,
    ):
        assert stream.honored.resource_subscriptions is None
        await hand.claim()
        with anyio.move_on_after(0.2):
            async for event in stream:
                raise AssertionError(event)


async def test_a_session_that_is_deleted_is_told_of_once(
    place: Place, agent: Agent, hand: Hand
) -> None:
    session_id, _ = await agent.start()
    await hand.complete(await hand.claim())
    uri = f"bilt://sessions/{session_id}"
    async with (
        modern(place) as listener,
        listener.client.listen(resource_subscriptions=[uri]) as stream,
    ):
        await hand.store.hide_old(hand.epoch, 2**60)
        assert await updates(stream, lambda _: True) == [ResourceUpdated(uri)]
        with pytest.raises(MCPError):
            await listener.client.read_resource(uri)


async def test_the_list_of_resources_is_told_of_when_a_workflow_starts(
    place: Place, agent: Agent
) -> None:
    async with (
        modern(place) as listener,
        listener.client.listen(resources_list_changed=True, tools_list_changed=True) as stream,
    ):
        assert stream.honored.resources_list_changed
        await agent.start()
        assert await updates(stream, lambda _: True) == [ResourcesListChanged()]


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_the_number_of_listeners_is_told_with_the_start(
    place: Place, agent: Agent, hand: Hand
) -> None:
    stores = OpenStores()
    try:
        async with (
            Client(create_server(place.config(), stores=stores), client_info=AGENT) as one,
            Client(create_server(place.config(), stores=stores), mode="legacy") as two,
        ):
            asking = Agent(one)
            session_id = await asking.session_id()
            uri = f"bilt://sessions/{session_id}"

            async def listeners() -> int:
                told = await asking.call("bilt_send_message", session_id=session_id, message="go")
                await hand.complete(await hand.claim())
                return int(told["subscriber_count"])

            assert await listeners() == 0
            async with one.listen(resource_subscriptions=[uri]):
                await subscribe(two, uri)
                await subscribe(two, uri)
                assert await listeners() == 2
                await unsubscribe(two, uri)
                await unsubscribe(two, uri)
                assert await listeners() == 1
            await wait_until(lambda: stores.audience.count(session_id) == 0, "it has gone")
            await subscribe(two, uri)
            assert await listeners() == 1
        assert stores.audience.count(session_id) == 0
    finally:
        await stores.close()


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_a_client_of_the_older_era_subscribes_and_unsubscribes(
    place: Place, agent: Agent, hand: Hand
) -> None:
    told = Told()
    server = create_server(place.config())
    async with Client(server, mode="legacy", message_handler=told) as client:
        session_id, workflow_id = await agent.start()
        uri = f"bilt://sessions/{session_id}"
        await subscribe(client, uri)
        claim = await hand.claim()
        await wait_until(lambda: told.uris == [uri], "it was told")
        await unsubscribe(client, uri)
        await subscribe(client, f"bilt://workflows/{workflow_id}")
        await hand.complete(claim)
        await wait_until(lambda: len(told.uris) == 2, "it was told of the other")
        assert told.uris[1] == f"bilt://workflows/{workflow_id}"
        for wrong in (f"bilt://sessions/{UNKNOWN}", "bilt://x", "bilt://workflows/w-1"):
            with pytest.raises(MCPError) as refused:
                await subscribe(client, wrong)
            assert refused.value.error.code == -32602
            assert refused.value.error.data == {"uri": wrong}


async def test_listening_is_bounded(
    place: Place, agent: Agent, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_WATCHED", 2)
    monkeypatch.setattr(live, "MOST_STREAMS", 1)
    uris: list[str] = []
    for _ in range(3):
        _, workflow_id = await agent.start()
        uris.append(f"bilt://workflows/{workflow_id}")
        await hand.complete(await hand.claim())
    async with modern(place) as listener:
        async with listener.client.listen(resource_subscriptions=uris) as stream:
            assert stream.honored.resource_subscriptions == uris[:2]
            with pytest.raises(MCPError):
                async with listener.client.listen(resource_subscriptions=uris[:1]):
                    pass
        with anyio.fail_after(PROMPT_SECONDS):
            while True:  # the server learns of the end a little later
                try:
                    async with listener.client.listen(resource_subscriptions=uris[:1]):
                        break
                except MCPError:
                    await anyio.sleep(0.01)


async def test_while_a_workflow_needs_a_worker_one_who_listens_sees_to_it(
    place: Place, agent: Agent, still: list[StillEngine]
) -> None:
    session_id, _ = await agent.start()
    async with modern(place) as listener:
        await listener.session_id()
        engine = still[-1]
        before = engine.wakes
        uri = f"bilt://sessions/{session_id}"
        async with listener.client.listen(resource_subscriptions=[uri]):
            await wait_until(lambda: engine.wakes >= before + 2, "it has asked twice")


async def test_trouble_with_the_store_passes_and_the_updates_go_on(
    place: Place, agent: Agent, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TROUBLE_SECONDS", 0.01)
    session_id, _ = await agent.start()
    uri = f"bilt://sessions/{session_id}"
    real, failures = SqliteStore.session, 0

    async def fail(store: SqliteStore, account: str, wanted: str) -> Any:
        nonlocal failures
        if failures < 3:
            failures += 1
            raise StoreUnavailable("not now")
        return await real(store, account, wanted)

    async with (
        modern(place) as listener,
        listener.client.listen(resource_subscriptions=[uri]) as stream,
    ):
        monkeypatch.setattr(SqliteStore, "session", fail)
        await hand.claim()
        assert await updates(stream, lambda _: True) == [ResourceUpdated(uri)]
        assert failures == 3


async def test_a_gate_whose_time_is_up_is_told_of_though_nobody_else_looks(
    place: Place, agent: Agent, hand: Hand
) -> None:
    place.workflow(
        '[[step]]\nname = "ship"\nrun = "true"\nconfirm = "Ship?"\nconfirm_timeout = "300ms"\n'
    )
    _, workflow_id = await agent.start()
    await hand.pause(await hand.claim(), "Ship?")
    uri = f"bilt://workflows/{workflow_id}"
    async with (
        modern(place) as listener,
        listener.client.listen(resource_subscriptions=[uri]) as stream,
    ):
        if '"cancelled"' not in str((await listener.client.read_resource(uri)).contents[0]):
            await updates(stream, lambda _: True)
        read = str((await listener.client.read_resource(uri)).contents[0])
        assert '"status":"cancelled"' in read
        assert '"action":"expire"' in read
