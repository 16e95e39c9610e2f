"""`make bench-peers` counts who is left alive, and kills them. What needs the network is not tested here."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bilt_mcp.bench import kernel

ROOT = Path(__file__).parent.parent
PACKAGE = Path(kernel.__file__).parent
"""Where the bench was imported from: a copy with a bug in it has the runner beside it, an installed one has not."""
RUNNER = next(
    at / "peers" / "run.py" for at in (PACKAGE, ROOT / "bench") if (at / "peers").is_dir()
)
LEAKY = ROOT / "tests" / "support" / "leaky_peer.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it counts processes in /proc")


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, RUNNER, "--smoke", "--json", "-", *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(found["machine"].values())
    return {row["peer"]: row for row in found["rows"]}


def at_work_in(folder: Path) -> list[int]:
    """Who has its current folder there, even if that was removed: only the jobs of this test."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append(int(process.name))
    return found


def test_who_outlives_a_cancel_is_counted_and_killed(tmp_path: Path) -> None:
    rows = run(
        tmp_path,
        *("--only", "floor", "--only", "killpg", "--only", "bilt-mcp", "--driver", str(LEAKY)),
    )
    assert {name: row["survivors_after"] for name, row in rows.items()} == {
        "floor": 0,
        "killpg": 1,
        "bilt-mcp": 0,
        "leaky_peer": 1,
        "leaky_peer + killpg": 1,
    }
    assert rows["bilt-mcp"]["survivors_at_answer"] == 0
    for name, row in rows.items():
        assert row["skipped"] is None, row
        for figure in ("start_ms", "cancel_answer_ms", "cancel_last_death_ms"):
            assert 0 < row[figure]["p50"] <= row[figure]["p95"] < 60_000, (name, figure)
            assert row[figure]["n"] == 1, (name, figure)
        assert (row["cancel_dead_ms"] is None) == bool(row["survivors_after"]), row
        assert (row["memory_mib"] is None) == (name != "bilt-mcp"), row
    assert rows["bilt-mcp"]["version"]
    assert rows["bilt-mcp"]["memory_mib"] > 90, "resident and worker are both counted"
    assert at_work_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == [], "it leaves files behind"


def test_a_peer_that_does_not_start_is_named_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no engine')\n", "utf-8")
    row = run(tmp_path, "--only", "floor", "--driver", str(broken))["broken"]
    assert "no engine" in row["skipped"]
    assert row["start_ms"] is None
    assert row["survivors_after"] is None
