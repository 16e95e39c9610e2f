"""A person at the chat: logs in, talks, answers, and follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio
import httpx2
import pytest

from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import SqliteAccess, SqliteStore, StoreLocation

from .http import new_key, serving
from .places import Place, open_place
from .rpc import PATIENCE

ASKS = """
[[step]]
name = "build"
run = "echo one; echo two"

[[step]]
name = "deploy"
run = "echo deployed > deployed; echo gone live"
deploy = true
confirm = "Deploy it?"
"""
"""A workflow that asks before it deploys."""
SKIPS = ASKS + 'on_decline = "skip"\n\n[[step]]\nname = "report"\nrun = "echo reported"\n'
HELD = '[[step]]\nname = "build"\nrun = "echo begun; until [ -e go ]; do sleep 0.02; done; echo done"\n'
"""A step that goes on when it may."""
TWO = '[[step]]\nname = "a"\nrun = "echo one"\n[[step]]\nname = "b"\nrun = "echo two"\n'
CANCELLED = {"status": "cancelled", "response": "Action cancelled.", "cancelled": True}
"""What a no is answered, beside the thread."""
NOTHING = {
    "error": "no_pending_action",
    "message": "No action of this thread waits for a confirmation: nothing was changed.",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for a module; each test writes its workflow."""
    with open_place(tmp_path_factory.mktemp("chat")) as found:
        yield found


@pytest.fixture(scope="module")
async def server(place: Place) -> AsyncIterator[Listening]:
    """One for a module."""
    settings = HttpSettings(login_rate=0, failure_rate=0)
    async with serving(place.config(), settings) as listening:
        yield listening


@pytest.fixture(scope="module")
async def alice_logged_in(server: Listening, place: Place) -> AsyncIterator[Person]:
    """One for a module: a login costs some writes that wait for the disk."""
    async with logged_in(server.url, place, "alice") as someone:
        yield someone


@pytest.fixture
def alice(alice_logged_in: Person, place: Place) -> Person:
    """Somebody who is logged in, where nothing was deployed and nothing may go on yet."""
    place.workflow(ASKS)
    for name in ("go", "deployed"):
        (place.project / name).unlink(missing_ok=True)
    return alice_logged_in


@pytest.fixture
async def store(place: Place) -> AsyncIterator[SqliteStore]:
    """The server's store, opened by another one."""
    async with SqliteStore(place.location) as opened:
        yield opened


@dataclass(frozen=True)
class Event:
    """One server-sent event as it came."""

    id: str | None
    name: str
    body: Mapping[str, Any]

    @property
    def data(self) -> Mapping[str, Any]:
        return self.body["data"]  # type: ignore[no-any-return]

    def __str__(self) -> str:
        shown = self.data.get("content") or self.data.get("node") or self.data.get("status") or ""
        return f"{self.name} {shown}".strip()


class Person:
    """One who is logged in, or needs no login."""

    def __init__(self, url: str, cookies: Mapping[str, str] | None = None) -> None:
        self.url = url
        self.http = httpx2.AsyncClient(base_url=url, cookies=dict(cookies or {}), timeout=PATIENCE)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        return await self.http.post(path, json=body, headers=headers)

    async def told(self, path: str, body: Any) -> Mapping[str, Any]:
        """What a request is answered that must succeed."""
        answer = await self.post(path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def say(self, message: str = "go", **more: Any) -> Mapping[str, Any]:
        """What /chat answers."""
        return await self.told("/chat", {"user_message": message, **more})

    async def queue(self, message: str = "go", **more: Any) -> str:
        """The thread of a message that was accepted."""
        return str(
            (await self.told("/chat/message", {"user_message": message, **more}))["thread_id"]
        )

    @asynccontextmanager
    async def stream(
        self, thread_id: str, last: str | None = None, **query: str
    ) -> AsyncGenerator[AsyncGenerator[Event]]:
        """The events of a thread, as they come."""
        headers = {} if last is None else {"Last-Event-ID": last}
        params = {"thread_id": thread_id, **query}
        async with self.http.stream("GET", "/chat/stream", params=params, headers=headers) as got:
            assert got.status_code == 200, await got.aread()
            assert got.headers["content-type"].startswith("text/event-stream")
            yield _events(got)

    async def follow(self, thread_id: str, last: str | None = None, **query: str) -> list[Event]:
        """All events up to the end of the stream."""
        with anyio.fail_after(PATIENCE):
            async with self.stream(thread_id, last, **query) as events:
                return [event async for event in events]

    async def until(self, thread_id: str, name: str, last: str | None = None) -> list[Event]:
        """The events up to the first of this name; then the stream is left."""
        seen: list[Event] = []
        with anyio.fail_after(PATIENCE):
            async with self.stream(thread_id, last) as events:
                async for event in events:
                    seen.append(event)
                    if event.name == name:
                        return seen
        raise AssertionError(f"no {name} in {[str(event) for event in seen]}")


@asynccontextmanager
async def person(url: str, cookies: Mapping[str, str] | None = None) -> AsyncGenerator[Person]:
    """Somebody at a server; gone when the context is left."""
    someone = Person(url, cookies)
    async with someone.http:
        yield someone


@asynccontextmanager
async def logged_in(
    url: str, place: Place, name: str, account: str = "local", *, read_only: bool = False
) -> AsyncGenerator[Person]:
    """Somebody with a key and a login of his own."""
    async with SqliteAccess(StoreLocation.of(place.store)) as access:
        key = await new_key(access, f"{name} {uuid4()}", account, read_only=read_only)
    async with person(url) as someone:
        await someone.told("/auth/login", {"key": key})
        yield someone


def shown(events: Sequence[Event]) -> list[str]:
    """What events tell, in short."""
    return [str(event) for event in events]


def ids(events: Sequence[Event]) -> list[str | None]:
    return [event.id for event in events]


async def gather(*waits: Any) -> list[Any]:
    """All of them at once."""
    return list(await asyncio.gather(*waits))


async def _events(answer: httpx2.Response) -> AsyncGenerator[Event]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            body = json.loads(fields["data"])
            assert set(body) == {"event_type", "data", "timestamp"}
            assert body["event_type"] == fields["event"]
            yield Event(fields.get("id"), fields["event"], body)
        fields = {}
