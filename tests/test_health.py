"""`/health` and `/metrics`: what who watches over a server learns, and what he does not."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import anyio
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bilt_mcp.engine import LocalEngine
from bilt_mcp.server.http.listening import Listening, listening
from bilt_mcp.server.http.readiness import Readiness
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import SqliteStore, StoreFull, StoreUnavailable
from bilt_mcp.state.driver import sqlite3

from .support.builds import build_in
from .support.http import bearer, key_in, new_key, serving
from .support.places import Place, open_place, stop_apart
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

FRESH = "bilt_mcp.server.http.readiness.KEPT_SECONDS"
"""Nothing is kept when it is below zero."""
GOOD = {"status": "ok", "live": True, "ready": True, "checks": {"store": "ok", "worker": "idle"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("health")) as found:
        yield found


@pytest.fixture(scope="module")
async def server(place: Place) -> AsyncGenerator[Listening]:
    async with serving(place.config()) as found:
        yield found


@pytest.fixture(scope="module")
async def client(server: Listening) -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as found:
        yield found


async def test_a_server_that_can_do_its_work_says_so_to_anybody(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FRESH, -1.0)
    for path in ("/health", "/health/ready"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (200, GOOD)
    live = await client.get("/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "ok", "live": True})


@pytest.mark.parametrize(
    ("trouble", "seen"),
    [(StoreFull("no room on /secret/disk"), "full"), (StoreUnavailable("/secret"), "unavailable")],
)
async def test_a_store_that_cannot_be_written_is_not_ready_but_alive(
    server: Listening,
    client: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    trouble: StoreUnavailable,
    seen: str,
) -> None:
    async def fail(_: SqliteStore) -> None:
        raise trouble

    monkeypatch.setattr(FRESH, -1.0)
    monkeypatch.setattr(SqliteStore, "pulse", fail)
    answer = await client.get("/health")
    assert answer.status_code == 503
    told = answer.json()
    assert (told["status"], told["live"], told["ready"]) == ("unavailable", True, False)
    assert told["checks"] == {"store": seen, "worker": "unknown"}
    assert "secret" not in answer.text
    assert (await client.get("/health/live")).status_code == 200


async def test_a_pulse_waits_for_whoever_writes_and_leaves_nothing(place: Place) -> None:
    async with SqliteStore(place.location) as store:
        assert await store.pulse() == {}
        before = place.location.database.read_bytes()
        with closing(sqlite3.connect(place.location.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with anyio.move_on_after(0.2):
                await store.pulse()
                raise AssertionError("somebody else was writing")
            other.execute("ROLLBACK")
        assert await store.pulse() == {}
        assert place.location.database.read_bytes() == before


async def test_a_server_that_stops_is_not_ready(place: Place) -> None:
    async with (
        serving(place.config()) as server,
        httpx2.AsyncClient(base_url=server.url) as client,
    ):
        server.site.stopping.set()
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
        assert answer.json()["ready"] is False
        assert (await client.get("/health/live")).status_code == 200


async def test_many_who_ask_share_one_look(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    really = Readiness._look  # pyright: ignore[reportPrivateUsage]

    async def look(readiness: Readiness) -> object:
        looks.append(1)
        return await really(readiness)

    monkeypatch.setattr(Readiness, "_look", look)
    monkeypatch.setattr(FRESH, -1.0)
    assert (await client.get("/health")).status_code == 200
    monkeypatch.setattr(FRESH, 3600.0)
    for _ in range(20):
        assert (await client.get("/health")).status_code == 200
    assert len(looks) == 1


async def test_the_engine_knows_how_it_is_with_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with build_in(tmp_path) as build:
        assert await build.engine.worker() == "idle"
        build.declare('[[step]]\nname = "build"\nrun = "sleep 60"\n')
        await build.start()
        await wait_until(build.location.control.exists, "there is a worker that can be asked")
        assert await build.engine.worker() == "alive"
        assert await build.store.pulse() != {}
        monkeypatch.setattr("bilt_mcp.engine.local.START_SECONDS", 0.1)
        stop_apart(build.worker_pid(), build.location)
        try:
            assert await build.engine.worker() == "missing"
        finally:
            build.kill(build.worker_pid(), number=signal.SIGCONT)


async def test_work_that_waits_for_a_worker_that_cannot_be_had_is_not_ready(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def missing(_: LocalEngine) -> str:
        return "missing"

    monkeypatch.setattr(FRESH, -1.0)
    monkeypatch.setattr(LocalEngine, "worker", missing)
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()["checks"]["worker"]) == (503, "missing")


# -- metrics ---------------------------------------------------------------------------------------


def samples(text: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    return {
        f"{each.name}{sorted(each.labels.items())}": each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


async def test_metrics_count_what_the_gate_lets_through_and_refuses(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FRESH, -1.0)
    before = samples((await client.get("/metrics")).text)
    await client.get("/health/live")
    await client.get("/v1/spaces")
    await client.get("/health/live", headers={"Host": "evil.example"})
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = samples(answer.text)
    live = [("method", "GET"), ("route", "/health/live"), ("surface", "rest")]
    ok = sorted([*live, ("status", "200")])
    refused = [("code", "foreign_host"), ("surface", "rest")]
    for name in (
        f"bilt_http_requests_total{ok}",
        f"bilt_http_request_seconds_count{sorted(live)}",
        f"bilt_http_refused_total{refused}",
    ):
        assert found[name] - before.get(name, 0) == 1, name
    assert found["bilt_ready[]"] == 1
    assert found["bilt_worker_alive[]"] == 0
    assert found["bilt_http_open_requests[]"] == 1
    assert found["process_resident_memory_bytes[]"] > 1e6


async def test_metrics_name_no_caller_and_nothing_that_a_caller_made_up(
    client: httpx2.AsyncClient, place: Place
) -> None:
    key = await key_in(place.config(), "carol", "tenants")
    made_up = str(uuid4())
    for path in (f"/v1/invocations/{made_up}", f"/v1/{made_up}", f"/{made_up}"):
        await client.get(path, headers=bearer(key))
    await client.request("BREW", f"/v1/invocations/{made_up}", headers=bearer(key))
    text = (await client.get("/metrics")).text
    assert "/v1/invocations/{id}" in text
    for told in (made_up, "carol", "tenants", "BREW", key):
        assert told not in text
    assert 'method="other"' in text


async def test_metrics_need_a_key_where_others_can_connect(place: Place) -> None:
    key = await key_in(place.config(), "scraper")
    public = HttpSettings(port=0, public_urls=("https://bilt.example",))
    async with (
        listening(place.config(), public) as server,
        httpx2.AsyncClient(base_url=server.url) as client,
    ):
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=bearer(key))).status_code == 200
        assert (await client.get("/health")).status_code == 200


async def test_metrics_are_of_all_accounts_and_so_no_tenants_matter(place: Place) -> None:
    public = HttpSettings(port=0, public_urls=("https://bilt.example",))
    async with (
        listening(place.config(), public) as server,
        httpx2.AsyncClient(base_url=server.url) as client,
    ):
        access = server.site.access
        stranger = await new_key(access, "stranger", "others")
        limited = await new_key(access, "limited", project=str(uuid4()))
        for key in (stranger, limited):
            answer = await client.get("/metrics", headers=bearer(key))
            assert (answer.status_code, answer.json()["code"]) == (403, "not_for_tenants")
            assert "bilt_workflows" not in answer.text
