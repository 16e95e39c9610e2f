"""`make bench` runs and measures something plausible. How fast anything is, is not tested here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

CANNOT_BEAT_THE_FLOOR = {"cancel", "start", "line", "message"}
"""What does all that its floor does, and more."""
ONLY_OURS = {"start answer", "flood worker", "flood keeper"}
"""What no floor has."""


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark counts processes in /proc")
def test_every_row_measures_something_plausible(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "run.py", "--smoke", "--json", "-"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows: dict[str, Any] = {row["name"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) >= 15
    assert all(found["machine"].values())
    for name, row in rows.items():
        for who in ("floor", "ours"):
            if who == "floor" and name in ONLY_OURS:
                continue
            got = row[who]
            assert 0 < got["min"] <= got["p50"] <= got["p95"] <= got["p99"] <= got["max"], (
                name,
                got,
            )
            assert got["n"] == row["ours"]["n"] > 0, name
            assert got["max"] < 60_000, (name, got)
    for name in CANNOT_BEAT_THE_FLOOR:
        assert rows[name]["ours"]["min"] > rows[name]["floor"]["min"], rows[name]
    assert {
        name: row["counts"]["survivors"]
        for name, row in rows.items()
        if "survivors" in row["counts"]
    } == {
        "cancel": 0,
        "cancel 48": 0,
    }
    assert list(tmp_path.iterdir()) == [], "it leaves files behind"
