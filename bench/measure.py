"""Which rows are measured, how often, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .figures import Row
from .product import Product, product, scratch
from .program import NAMES
from .rounds_calls import measure_calls
from .rounds_cancel import measure_beside, measure_cancel, measure_start
from .rounds_first import measure_cold, measure_warm
from .rounds_http import measure_http, measure_streams
from .rounds_output import measure_flood, measure_lines
from .rounds_store import measure_store
from .rounds_waiting import measure_waiting


@dataclass(frozen=True)
class Rounds:
    """How many of each."""

    warm: int
    cold: int
    cancel: int
    hostile: int
    start: int
    calls: int
    store: int
    lines: int
    flood: int
    deluge: int
    wakes: int
    windows: int
    """Of two seconds each, in which a hundred calls, or two hundred streams, are held."""
    requests: int
    """Over HTTP, one after the other."""
    http: int
    """Cancels and lines over HTTP."""
    streams: int = 200
    beside: int = 8
    """Builds that run beside."""
    many: int = 1_000_000
    worker_idle: float = 4.0
    """Long enough for the worker to stay warm between two rounds, short enough to wait for its end."""


FULL = Rounds(
    warm=40,
    cold=8,
    cancel=80,
    hostile=20,
    start=60,
    calls=1500,
    store=2000,
    lines=80,
    flood=5,
    deluge=3,
    wakes=80,
    windows=8,
    requests=1500,
    http=40,
)
QUICK = Rounds(
    warm=10,
    cold=3,
    cancel=15,
    hostile=4,
    start=12,
    calls=200,
    store=300,
    lines=20,
    flood=1,
    deluge=0,
    wakes=25,
    windows=3,
    requests=300,
    http=12,
    many=100_000,
)
SMOKE = Rounds(
    warm=2,
    cold=1,
    cancel=2,
    hostile=1,
    start=2,
    calls=5,
    store=20,
    lines=4,
    flood=1,
    deluge=0,
    wakes=2,
    windows=1,
    requests=5,
    http=2,
    streams=5,
    beside=1,
    many=2_000,
    worker_idle=1.0,
)


def measure(names: set[str], count: Rounds) -> list[Row]:
    """The rows of the chosen names, in the order in which they are shown."""
    rows: dict[str, list[Row]] = {}
    with scratch() as folder:
        if "warm" in names:
            rows["warm"] = measure_warm(folder, count.warm)
        if "cold" in names:
            rows["cold"] = measure_cold(folder, count.cold)
        if names & {"cancel", "start", "beside", "calls", "http", "output"}:
            with product(folder, count.worker_idle) as served:
                rows |= _measure_served(served, folder, names, count)
        # Last: meanwhile the worker finds nothing to do and leaves.
        if "store" in names:
            rows["store"] = measure_store(folder, count.store, count.many)
        if "http" in names:
            rows["http"] += measure_streams(folder, count.windows, count.streams)
        if "waiting" in names:
            rows["waiting"] = measure_waiting(folder, count.wakes, count.windows)
    return [row for name in NAMES if name in rows for row in rows[name]]


def _measure_served(
    served: Product, folder: Path, names: set[str], count: Rounds
) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    if "cancel" in names:
        rows["cancel"] = measure_cancel(served, count.cancel, count.hostile)
    if "beside" in names:
        rows["beside"] = measure_beside(
            served, folder, count.beside, count.cancel // 2, max(1, count.hostile // 2)
        )
    if "start" in names:
        rows["start"] = measure_start(served, count.start)
    if "calls" in names:
        rows["calls"] = measure_calls(served, folder, count.calls)
    if "http" in names:
        rows["http"] = measure_http(served, folder, count.requests, count.http)
    if "output" in names:
        rows["output"] = [
            *measure_lines(served, count.lines),
            *measure_flood(served, "flood", count.flood),
            *(measure_flood(served, "deluge", count.deluge) if count.deluge else ()),
        ]
    return rows
