"""What a step may leave in its folder, and what comes of it: never the end of a worker, and no text as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bilt_mcp.state import SqliteStore, StoreLocation, StoreUnavailable
from bilt_mcp.state.turn import WriteTurn

from .store_contract import Kind, ManualClock, Scene
from .support.builds import Build, build_in
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    async with build_in(tmp_path) as made:
        yield made


def step(name: str, run: str) -> str:
    return f"[[step]]\nname = '{name}'\nrun = '''{run}'''\n"


async def test_pruning_that_gets_no_turn_is_told_in_the_stores_own_words(
    quick_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = StoreLocation.of(quick_path / "store")
    async with SqliteStore(location, clock) as store:
        scene = Scene(store)
        await scene.subject(Kind.COMPLETED)
        clock.go_on(1000)
        assert await store.hide_old(await scene.epoch(), clock.now()) == 1
        monkeypatch.setattr("bilt_mcp.state.group_commit.BUSY_SECONDS", 0.05)
        with WriteTurn(location.turn).taken(5), pytest.raises(StoreUnavailable):
            await store.delete_hidden(await scene.epoch())
        assert await store.delete_hidden(await scene.epoch())


async def test_a_folder_that_cannot_be_settled_does_not_end_the_next_workers(
    tmp_path: Path,
) -> None:
    async with build_in(tmp_path, idle_seconds=0.0) as build:
        build.declare(step("only", 'mkdir -p "$BILT_ARTIFACTS/../01.1.log"'))
        await build.start()
        assert (await build.ended()).status == "completed"
        await wait_until(lambda: not build.worker_is_alive(), "the idle worker has gone")
        assert list(build.location.open.iterdir()) == []  # its secrets are forgotten all the same
        build.declare(step("only", "echo fine"))
        await build.start()
        assert (await build.ended()).status == "completed"


async def test_a_log_file_that_a_step_has_written_itself_does_not_end_the_worker(
    tmp_path: Path,
) -> None:
    async with build_in(tmp_path, idle_seconds=0.0) as build:
        nonsense = "printf 'nonsense nonsense nonsense' > \"$BILT_ARTIFACTS/../01.1.tail1\""
        build.declare(step("only", nonsense))
        for _ in range(2):
            await build.start()
            assert (await build.ended()).status == "completed"
            await wait_until(lambda: not build.worker_is_alive(), "the idle worker has gone")
        assert "Traceback" not in build.location.worker_log.read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (r"caf\351", "caf\ufffd"),
        (r"x\033[2Jy\nz", "xy z"),
        ("ghp_0123456789abcdefghij0123456789abcd", "[redacted]"),
    ],
)
async def test_the_names_of_artifacts_are_untrusted_text_too(
    build: Build, name: str, shown: str
) -> None:
    build.declare(step("only", f"touch \"$BILT_ARTIFACTS/$(printf '{name}')\""))
    await build.start()
    assert (await build.ended()).status == "completed"
    listed = (await build.messages())[-1].content
    assert listed.endswith(f"\n{shown} (0 bytes)")
