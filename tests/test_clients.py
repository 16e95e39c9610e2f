"""`make clients` believes no client: what each saw is compared with what is documented, ability by ability."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bilt_mcp.tools import TOOLS

from .clients import environments
from .clients.check import ABILITIES, problems
from .clients.environments import Unavailable, installed
from .clients.known import DRIVERS, KNOWN
from .clients.place import DriverFailed, place, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it counts processes in /proc")

ROOT = Path(__file__).parent.parent
NAMES = [tool.name for tool in TOOLS]


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the SDK's own client sees, which is in the development environment."""
    with place() as folder:
        return run([sys.executable, str(DRIVERS / "mcp_client.py"), "auto"], folder)


def test_a_client_that_saw_everything_has_no_problem(seen: dict[str, Any]) -> None:
    assert problems(seen, NAMES) == {}


def test_a_client_whose_user_cannot_be_asked_must_have_been_refused(seen: dict[str, Any]) -> None:
    other = {name: value for name, value in seen.items() if name != "asked"}
    assert problems(other, NAMES).keys() == {"gate"}


@pytest.mark.parametrize(
    ("ability", "path", "value"),
    [
        ("list", ("tools",), ["bilt_get_session"]),
        ("start", ("started", "workflow_started"), False),
        ("wait", ("waited", -1, "status"), "running"),
        ("read", ("read", "messages"), []),
        ("cancel", ("cancelled", "stopped", "verified"), False),
        ("cancel", ("cancelled", "stopped"), "as text"),
        ("cancel", ("after cancel", "status"), "running"),
        ("gate", ("gate", "body"), {"error": "Confirmation required"}),
        ("gate", ("asked",), []),
        ("error", ("refused", "body"), "Error executing tool bilt_cancel_workflow"),
        ("error", ("unknown", "body", "details"), {}),
    ],
)
def test_what_a_client_lost_is_named(
    seen: dict[str, Any], ability: str, path: tuple[str | int, ...], value: object
) -> None:
    lossy = copy.deepcopy(seen)
    at: Any = lossy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert problems(lossy, NAMES).keys() == {ability}


def test_a_client_whose_waits_came_back_at_once_has_polled(seen: dict[str, Any]) -> None:
    assert len(seen["waited"]) > 1
    polling = {**seen, "waited": seen["waited"] * 20}
    assert problems(polling, NAMES).keys() == {"wait"}


def test_a_driver_that_ends_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such transport')\n", "utf-8")
    with place() as folder, pytest.raises(DriverFailed, match="no such transport"):
        run([sys.executable, str(broken)], folder)


@pytest.mark.timeout(300)  # a first run installs
@pytest.mark.parametrize("name", ["mcp 1.x", "typescript 1.x"])
def test_a_client_that_is_in_wide_use_can_do_everything(name: str) -> None:
    """The older generations are the strict ones: TypeScript's checks a failed call against the output schema, too."""
    known = next(known for known in KNOWN if known.name == name)
    try:
        installed(known)
    except Unavailable as why:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{name}: {why}")
    row = runner("--only", name)["rows"][0]
    assert row["wrong"] == {}, row
    assert row["did"] == dict.fromkeys(ABILITIES, True)
    assert row["asks"] is True


def test_where_no_registry_is_reached_it_is_said_and_tried_again_the_next_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environments, "PLACE", tmp_path / "clients")
    with pytest.raises(Unavailable, match=r"^not installed$"):
        installed(KNOWN[0], may_install=False)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"^cannot be installed: .*network was disabled"):
            installed(KNOWN[0])


def runner(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.clients", "--json", "-", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_client_has_its_driver_and_its_pins() -> None:
    assert {known.driver for known in KNOWN} == {file.name for file in DRIVERS.glob("*_client.*")}
    for known in KNOWN:
        assert known.version()[0].isdigit(), known.name
        if not known.npm:
            lines = known.pins.read_text("utf-8").splitlines()
            assert all("==" in line for line in lines), known.pins
            assert {wish.partition("==")[2] for wish in known.wants if "==" in wish} <= {
                line.partition("==")[2] for line in lines
            }
