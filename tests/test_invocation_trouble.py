"""A cancel over REST kills also when the store cannot take it, cannot say what it is about, or does not answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import anyio
import pytest

from bilt_mcp.engine import LocalEngine
from bilt_mcp.server.http import invocations
from bilt_mcp.server.http.identity import Identity
from bilt_mcp.state import Account, Caller, ProcessRecord, SqliteStore, StoreFull
from bilt_mcp.tools import cancelling

from .support.agents import UNKNOWN
from .support.hostile import alive, end
from .support.http import new_key
from .support.places import Place
from .support.places import place as place
from .support.rest import Inside, inside, step, tree
from .support.rpc import PATIENCE
from .support.seed import Json, fits
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

FULL = StoreFull("The disk is full.")
ME = Identity(Account("local"), "a test", "test")


@pytest.fixture
def marker() -> str:
    return f"trouble-{uuid4()}"


@pytest.fixture
async def rest(place: Place, marker: str) -> AsyncGenerator[Inside]:
    place.workflow(step("hang", tree(marker), grace=0.1))
    async with inside(place) as found:
        try:
            yield found
        finally:
            end(alive(marker))


async def grown(rest: Inside, marker: str) -> Json:
    running = await rest.create("hang")
    await wait_until(lambda: len(alive(marker)) > 1, "it has grown", timeout=20)
    return running


async def fails(*_: Any, **__: Any) -> Any:
    raise FULL


async def hangs(*_: Any, **__: Any) -> Any:
    await anyio.sleep_forever()


@pytest.mark.parametrize("look", ["get", "list"])
async def test_who_only_looks_is_not_told_for_ever_that_it_runs(
    rest: Inside, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """As after a power cut: the worker, and what could have started another one, are gone."""
    with monkeypatch.context() as patch:
        patch.setattr(LocalEngine, "wake", nothing)
        lost = await rest.create("hang")
        store = (await rest.server.site.desk(ME)).store
        assert isinstance(store, SqliteStore)
        epoch = await store.take_over(ProcessRecord("another boot", 1, 0), "1")
        claim = await store.claim(epoch)
        assert claim is not None
        assert (await rest.get(lost))["status"] == "dispatching"
    path = {"get": f"/v1/invocations/{lost['id']}", "list": f"/v1/runs/{lost['runId']}/invocations"}
    with anyio.fail_after(PATIENCE):
        while "worker_lost" not in (await rest.http.get(path[look])).text:  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def nothing(*_: Any, **__: Any) -> None:
    pass


@pytest.mark.parametrize("verb", [fails, hangs])
async def test_a_cancel_that_the_store_cannot_take_kills_first(
    rest: Inside, marker: str, monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    running = await grown(rest, marker)
    monkeypatch.setattr(SqliteStore, "cancel", verb)
    monkeypatch.setattr(cancelling, "STORE_SECONDS", 0.2)
    answer = await rest.cancel(running)
    assert alive(marker) == []
    assert answer.status_code == 200
    # The worker has a store of its own, which works.
    assert fits(answer.json())["status"] == "cancelled"


async def test_a_cancel_that_is_not_recorded_yet_says_so(
    rest: Inside, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await grown(rest, marker)
    monkeypatch.setattr(SqliteStore, "cancel", fails)
    monkeypatch.setattr(SqliteStore, "workflow", fails)
    monkeypatch.setattr(cancelling, "RECORD_SECONDS", 0.1)
    told = fits((await rest.cancel(running)).json())
    assert alive(marker) == []
    assert (told["status"], told["finishedAt"]) == ("cancelling", None)
    assert told["cancelRequestedAt"] >= running["createdAt"]
    assert "not recorded yet" in told["progress"]["message"]
    await rest.until(running, lambda now: now["status"] == "cancelled")


@pytest.mark.parametrize("verb", [fails, hangs])
async def test_what_the_store_cannot_show_is_killed_all_the_same(
    rest: Inside, marker: str, monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    running = await grown(rest, marker)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "invocation", verb)
        patch.setattr(invocations, "LOOK_SECONDS", 0.2)
        answer = await rest.cancel(running)
        assert alive(marker) == []
    told = answer.json()
    assert (answer.status_code, told["code"]) == (503, "store_unavailable")
    assert told["details"]["stopped"]["verified"] is True
    assert told["details"]["stopped"]["survivors"] == 0
    await rest.until(running, lambda now: now["status"] == "cancelled")


async def test_who_is_limited_to_a_project_kills_nothing_that_the_store_cannot_show_to_be_his(
    rest: Inside, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await grown(rest, marker)
    key = await new_key(rest.server.site.access, "limited", project=rest.runtime)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "invocation", fails)
        answer = await rest.cancel(running, key)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_full")
        patch.undo()
        patch.setattr(SqliteStore, "cancel", fails)
        patch.setattr(SqliteStore, "session", fails)
        answer = await rest.cancel(running, key)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_full")
    assert len(alive(marker)) > 1
    assert fits((await rest.cancel(running, key)).json())["status"] == "cancelled"


async def test_an_id_that_is_not_running_kills_nothing_of_the_account(
    rest: Inside, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await grown(rest, marker)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "invocation", fails)
        answer = await rest.cancel({"id": UNKNOWN})
        assert (answer.status_code, answer.json()["code"]) == (503, "store_full")
        assert "details" not in answer.json() or "stopped" not in answer.json()["details"]
    engine = (await rest.server.site.desk(ME)).engine
    by = Caller("a test")
    assert await engine.halt("others", None, None, by, running["id"]) is None
    assert await engine.halt("local", None, None, by) is None
    assert await engine.halt("local", running["runId"], None, by, UNKNOWN) is None
    assert len(alive(marker)) > 1
    await rest.cancel(running)
