"""`bilt-mcp bench` runs and measures something plausible. How fast anything is, is not tested here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ONLY_OURS = {"start answer", "start answer beside", "flood worker", "flood keeper"}
"""What no floor has."""
NEEDS_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="the benchmark counts processes in /proc"
)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, as a user who has installed the package."""
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@NEEDS_LINUX
@pytest.mark.timeout(300)  # it starts two dozen servers
def test_every_row_measures_something_plausible(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "bilt_mcp.server", "bench", "--smoke", "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows: dict[str, Any] = {row["name"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) >= 16
    assert found["command"] == "bilt-mcp bench --smoke --json -"
    assert all(found["machine"].values())
    for name, row in rows.items():
        for who in ("floor", "ours"):
            if who == "floor" and name in ONLY_OURS:
                continue
            got = row[who]
            least = 0 if row["unit"] == "MiB" else 1e-6  # memory may not grow at all
            assert least <= got["min"] <= got["p50"] <= got["p95"] <= got["p99"] <= got["max"], (
                name,
                got,
            )
            assert got["n"] == row["ours"]["n"] > 0, name
            assert got["max"] < 60_000, (name, got)
    assert {
        name: row["counts"]["survivors"]
        for name, row in rows.items()
        if "survivors" in row["counts"]
    } == {
        "cancel": 0,
        "cancel 48": 0,
        "cancel beside": 0,
        "cancel 48 beside": 0,
        "http cancel": 0,
    }
    assert rows["memory"]["counts"]["MiB more, once for all clients"] > 0, "nothing was resident"
    assert list(tmp_path.iterdir()) == [], "it leaves files behind"


@NEEDS_LINUX
def test_a_missed_target_is_an_exit_code_when_it_is_asked_for(tmp_path: Path) -> None:
    """Of a cold start: whether it reaches its target is the machine's affair."""
    file = tmp_path / "cold.json"
    words = ("-m", "bilt_mcp.bench", "--smoke", "--only", "cold", "--check", "--json", str(file))
    done = run(tmp_path, *words)
    (row,) = json.loads(file.read_text("utf-8"))["rows"]
    assert row["ok"] == (row["ratio"] <= row["target"]["ratio"])
    assert done.returncode == (0 if row["ok"] else 1), done.stderr
    assert ("missed: cold" in done.stderr) == (not row["ok"])


@NEEDS_LINUX
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    done = run(tmp_path, "-m", "bilt_mcp.bench", "--json", "no/such/folder.json")
    assert done.returncode == 2
    assert done.stderr == (
        "bilt-mcp bench: cannot write no/such/folder.json: No such file or directory\n"
    )


def test_where_it_cannot_measure_it_says_so_and_imports_nothing_that_is_not_there(
    tmp_path: Path,
) -> None:
    script = (
        "import sys\n"
        "sys.platform = 'win32'\n"
        "sys.modules['fcntl'] = None\n"
        "from bilt_mcp.bench import main\n"
        "sys.exit(main(['--quick']))\n"
    )
    done = run(tmp_path, "-c", script)
    assert done.returncode == 2
    assert "needs Linux" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [[], ["--no-resident"]])
def test_who_serves_does_not_pay_for_the_bench(how: list[str], tmp_path: Path) -> None:
    words = ("-X", "importtime", "-P", "-m", "bilt_mcp.server", "--store", "store")
    done = subprocess.run(
        [sys.executable, *words, *how],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "bilt_mcp.server" in imported
    assert ("bilt_mcp.server.app" in imported) == bool(how)
    assert [name for name in imported if "bench" in name] == []
