"""Samples, rows, and the table that they end in. Every sample counts: no outlier is removed."""

from __future__ import annotations

import json
import math
import statistics
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any

HEAD = ("what", "floor p50", "ours p50", "ratio", "p95", "p99", "n", "target", "ok?")
TARGET = HEAD.index("target")
WIDE = 42
"""Characters of what a row is about, before it goes on in another line."""


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear between the two nearest samples, as most tools do it."""
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Target:
    """What a row must reach, in the row's unit; a ratio is ours p50 by floor p50."""

    p50: float | None = None
    p95: float | None = None
    ratio: float | None = None

    def told(self, unit: str) -> str:
        """In words."""
        parts = [
            f"{name} ≤ {limit:g} {unit}"
            for name, limit in (("p50", self.p50), ("p95", self.p95))
            if limit is not None
        ]
        if self.ratio is not None:
            parts.append(f"p50 ≤ {self.ratio:g} × floor")
        return ", ".join(parts)


@dataclass
class Row:
    """One line of the table: the same thing done by ours and by the least that could do it."""

    name: str
    what: str
    floor_is: str
    unit: str = "ms"
    target: Target | None = None
    floor: list[float] = field(default_factory=list[float])
    ours: list[float] = field(default_factory=list[float])
    counts: dict[str, float] = field(default_factory=dict[str, float])
    """Further figures of the row. `survivors` must be 0."""

    @property
    def ratio(self) -> float | None:
        """Ours p50 by floor p50; None for what no floor has."""
        if not self.floor:
            return None
        return statistics.median(self.ours) / statistics.median(self.floor)

    @property
    def ok(self) -> bool | None:
        """Whether the target is reached and nothing survived; None when nothing was asked for."""
        if self.counts.get("survivors"):
            return False
        if self.target is None:
            return None
        reached = [
            (self.target.p50, percentile(self.ours, 50)),
            (self.target.p95, percentile(self.ours, 95)),
            (self.target.ratio, self.ratio),
        ]
        return all(got is not None and got <= limit for limit, got in reached if limit is not None)

    def cells(self) -> tuple[str, ...]:
        """As a line of the table."""
        ratio, ok = self.ratio, self.ok
        return (
            self.what + "".join(f" ({told(value)} {name})" for name, value in self.counts.items()),
            f"{told(percentile(self.floor, 50))} {self.unit}" if self.floor else "",
            f"{told(percentile(self.ours, 50))} {self.unit}",
            "" if ratio is None else told(ratio),
            told(percentile(self.ours, 95)),
            told(percentile(self.ours, 99)),
            str(len(self.ours)),
            "" if self.target is None else self.target.told(self.unit),
            {True: "yes", False: "NO", None: ""}[ok],
        )

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "what": self.what,
            "unit": self.unit,
            "floor_is": self.floor_is,
            "floor": _summary(self.floor),
            "ours": _summary(self.ours),
            "ratio": self.ratio,
            "counts": self.counts,
            "target": None if self.target is None else asdict(self.target),
            "ok": self.ok,
        }


def _summary(samples: Sequence[float]) -> dict[str, float] | None:
    if not samples:
        return None
    points = {f"p{percent}": percentile(samples, percent) for percent in (50, 95, 99)}
    return {"n": len(samples), "min": min(samples), **points, "max": max(samples)}


def told(value: float) -> str:
    """Three digits that count."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return (
        f"{value:.{2 - math.floor(math.log10(abs(value)))}f}" if abs(value) < 10 else f"{value:.1f}"
    )


def show(rows: Sequence[Row], machine: dict[str, str], *, to_stderr: bool) -> None:
    """Print the table and the machine."""
    out = sys.stderr if to_stderr else sys.stdout
    blocks = [_broken(line) for line in (HEAD, *(row.cells() for row in rows))]
    lines = [line for block in blocks for line in block]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    for number, block in enumerate(blocks):
        for line in block:
            cells = [
                cell.ljust(width) if column in (0, TARGET, TARGET + 1) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            print("  ".join(cells).rstrip(), file=out)
        if number == 0:
            print("  ".join("-" * width for width in widths), file=out)
    print(file=out)
    print("The floor is the least that could do the same:", file=out)
    for floor_is, names in _floors(rows).items():
        print(f"  {', '.join(names)}: {floor_is}", file=out)
    print(file=out)
    print(", ".join(f"{name} {value}" for name, value in machine.items()), file=out)


def _broken(cells: Sequence[str]) -> list[tuple[str, ...]]:
    """A line of the table, as so many that it fits into a terminal of 120 columns."""
    columns = [[cell] for cell in cells]
    columns[0] = textwrap.wrap(cells[0], WIDE, subsequent_indent="  ")
    columns[TARGET] = cells[TARGET].replace(", ", ",\n").split("\n")
    return list(zip_longest(*columns, fillvalue=""))


def _floors(rows: Iterable[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.floor_is:
            found.setdefault(row.floor_is, []).append(row.name)
    return found


def as_json(rows: Iterable[Row], machine: dict[str, str], command: str) -> str:
    """All figures and the command that made them, for another program."""
    found = {"command": command, "machine": machine, "rows": [row.record() for row in rows]}
    return json.dumps(found, indent=1, ensure_ascii=False)


def rounds(what: str, count: int) -> Iterable[int]:
    """The numbers 0 to `count` - 1, with a progress bar on a terminal."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console
            from rich.progress import track
        except ImportError:
            pass
        else:
            return track(range(count), what, console=Console(stderr=True), transient=True)
    print(f"measuring: {what} ({count} rounds)", file=sys.stderr, flush=True)
    return range(count)
