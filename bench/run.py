"""Measures bilt-mcp as its users meet it, each figure against the least that could do the same.

    make bench                        90 seconds
    make bench ARGS=--quick           20 seconds
    make bench ARGS="--only cancel --json cancel.json"

Real servers over real stdio, a real worker, real steps. Floor and ours take turns, so that a noisy machine hits
both; percentiles are of all samples. It needs Linux, because it asks the kernel (/proc) what is alive.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from bench.figures import Row, as_json, show
from bench.product import Product, product, scratch
from bench.rounds_calls import measure_calls, measure_cold
from bench.rounds_cancel import measure_cancel, measure_start
from bench.rounds_output import measure_flood, measure_lines
from bench.rounds_store import measure_store
from bilt_mcp.state import SQLITE_VERSION, VERSION

NAMES = ("cancel", "start", "calls", "cold", "output", "store")


@dataclass(frozen=True)
class Rounds:
    """How many of each."""

    cancel: int
    hostile: int
    start: int
    calls: int
    cold: int
    flood: int
    lines: int
    store: int
    many: int = 100_000
    worker_idle: float = 4.0
    """Long enough for the worker to stay warm between two rounds, short enough to wait for its end."""


FULL = Rounds(cancel=80, hostile=20, start=60, calls=1500, cold=8, flood=5, lines=80, store=2000)
QUICK = Rounds(cancel=15, hostile=4, start=12, calls=200, cold=2, flood=1, lines=20, store=300)
SMOKE = Rounds(
    cancel=2,
    hostile=1,
    start=2,
    calls=5,
    cold=1,
    flood=1,
    lines=4,
    store=20,
    many=2_000,
    worker_idle=1.0,
)


def measure(names: set[str], count: Rounds) -> list[Row]:
    """The rows of the chosen names, in the order in which they are shown."""
    rows: dict[str, list[Row]] = {}
    with scratch() as folder:
        if "cold" in names:
            rows["cold"] = measure_cold(folder, count.cold)
        if names & {"cancel", "start", "calls", "output"}:
            with product(folder, count.worker_idle) as served:
                rows |= _measure_served(served, folder, names, count)
        # Last: meanwhile the worker finds nothing to do and leaves.
        if "store" in names:
            rows["store"] = measure_store(folder, count.store, count.many)
    return [row for name in NAMES if name in rows for row in rows[name]]


def _measure_served(
    served: Product, folder: Path, names: set[str], count: Rounds
) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    if "cancel" in names:
        rows["cancel"] = measure_cancel(served, count.cancel, count.hostile)
    if "start" in names:
        rows["start"] = measure_start(served, count.start)
    if "calls" in names:
        rows["calls"] = measure_calls(served, folder, count.calls)
    if "output" in names:
        rows["output"] = measure_lines(served, count.lines) + measure_flood(served, count.flood)
    return rows


def machine() -> dict[str, str]:
    """What was measured, and on what."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tempfile.gettempdir()],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "bilt-mcp": VERSION,
        "cores": str(len(os.sched_getaffinity(0))),
        "CPU": _cpu(),
        "load before": _load(),
        "kernel": platform.release(),
        "file system": kind.stdout.strip(),
        "Python": platform.python_version(),
        "SQLite": SQLITE_VERSION,
    }


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def main() -> int:
    """Run the program; returns its exit code."""
    given = _arguments()
    if sys.platform != "linux":
        print("bench/run.py needs Linux: it counts what is alive in /proc.", file=sys.stderr)
        return 2
    facts = machine()
    count = SMOKE if given.smoke else QUICK if given.quick else FULL
    try:
        rows = measure(set(given.only or NAMES), count)
    except KeyboardInterrupt:
        print("interrupted; what was started is stopped", file=sys.stderr)
        return 130
    facts["load after"] = _load()
    show(rows, facts, to_stderr=given.json == "-")
    if given.json == "-":
        print(as_json(rows, facts))
    elif given.json:
        Path(given.json).write_text(as_json(rows, facts) + "\n", "utf-8")
    missed = [row.name for row in rows if row.ok is False]
    if given.check and missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about 20 s")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", action="append", choices=NAMES, help="only these rows; may be repeated"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there; - is the output")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
