"""Figures that were kept as JSON, as pictures: bars of our ratio to the floor, and the peers beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from .figures import told
from .sheet import WIDE, LogAxis, Sheet
from .tables import OURS, Found, amount, chosen_rows, dead, middle

WIDTH = 920.0
MARGIN = 24.0
ROW = 28.0
BAR = 12.0
VALUES = 196.0
"""Room for the figures on the right."""

METRICS = (
    ("start_ms", "start of a step", "ms"),
    ("cancel_dead_ms", "cancel, until all of it is dead", "ms"),
    ("memory_mib", "memory", "MiB"),
    ("first_answer_ms", "first answer, when nothing of it ran", "ms"),
)


def figures_picture(found: Found, names: Sequence[str] = ()) -> str:
    """A bar for each row that has a floor: how many times the floor our p50 is, with its target."""
    rows = [row for row in chosen_rows(found, names) if row["ratio"] is not None]
    sheet = Sheet(WIDTH)
    sheet.text(MARGIN, 36, "bilt-mcp, as a multiple of the least that could do the same", "title")
    facts: Found = found["machine"]
    cores = f"{facts['cores']} cores" if "cores" in facts else ""
    on = ", ".join(filter(None, [cores, facts.get("CPU")]))
    said = f"Each floor was measured in the same run, taking turns with ours. {on}"
    sheet.text(MARGIN, 56, said.strip(), "quiet small")
    words = max((len(row["what"].strip()) for row in rows), default=0)
    left = MARGIN + min(max(words * WIDE, 200), 380) + 8
    marked = [value for row in rows for value in _marked(row)]
    axis = LogAxis(min([*marked, 0.9]), max([*marked, 1.1]), left, WIDTH - MARGIN - VALUES)
    top = 84.0
    foot = top + len(rows) * ROW
    for number in range(0, len(rows), 2):
        sheet.box(MARGIN - 10, top + number * ROW, WIDTH - 2 * MARGIN + 20, ROW, "band", 4)
    for mark in axis.marks():
        sheet.line(axis.at(mark), top - 4, axis.at(mark), foot, "one" if mark == 1 else "grid")
        said = "floor" if mark == 1 else f"{mark:,g}×"
        sheet.text(axis.at(mark), top - 10, said, "quiet small", anchor="middle")
    for inset, said in ((116, "ratio"), (24, "p50")):
        sheet.text(WIDTH - MARGIN - inset, top - 10, said, "quiet small", anchor="end")
    for number, row in enumerate(rows):
        _bar(sheet, axis, row, top + number * ROW)
    _legend(sheet, foot + 26)
    return sheet.picture(foot + 44, "bilt-mcp's p50 as a multiple of the floor of the same run")


def _marked(row: Found) -> list[float]:
    """All that a row shows on the axis, as multiples of its floor."""
    limits = [limit for limit in (_limit(row, "p50"), _limit(row, "p95")) if limit is not None]
    return [row["ratio"], row["ours"]["p95"] / row["floor"]["p50"], *limits]


def _limit(row: Found, percentile: str) -> float | None:
    """The row's target for a percentile as a multiple of its floor; of two the stricter."""
    target: Found = row["target"] or {}
    limits: list[float] = []
    if target.get(percentile) is not None:
        limits.append(target[percentile] / row["floor"]["p50"])
    if percentile == "p50" and target.get("ratio") is not None:
        limits.append(target["ratio"])
    return min(limits, default=None)


def _bar(sheet: Sheet, axis: LogAxis, row: Found, y: float) -> None:
    middle = y + ROW / 2
    one, end = axis.at(1), axis.at(row["ratio"])
    tail = axis.at(row["ours"]["p95"] / row["floor"]["p50"])
    kind = {True: "reached", False: "missed", None: "plain"}[row["ok"]]
    sheet.text(MARGIN, middle + 4.5, row["what"].strip())
    sheet.line(end, middle, tail, middle, "whisker")
    sheet.line(tail, middle - 3, tail, middle + 3, "whisker")
    sheet.box(min(one, end), middle - BAR / 2, max(abs(end - one), 2), BAR, kind, 2)
    for percentile, style in (("p50", "limit"), ("p95", "limit tail")):
        limit = _limit(row, percentile)
        if limit is not None:
            sheet.line(axis.at(limit), middle - 10, axis.at(limit), middle + 10, style)
    right = WIDTH - MARGIN
    sheet.text(right - 116, middle + 4.5, f"{told(row['ratio'])} ×", "number strong", anchor="end")
    said = amount(row["ours"]["p50"], row["unit"])
    sheet.text(right - 24, middle + 4.5, said, "number quiet", anchor="end")
    if row["ok"] is not None:
        sheet.text(
            right, middle + 4.5, "✓" if row["ok"] else "✗", "" if row["ok"] else "bad", anchor="end"
        )


def _legend(sheet: Sheet, y: float) -> None:
    x = MARGIN
    for kind, said in (("reached", "target reached"), ("missed", "missed"), ("plain", "no target")):
        sheet.box(x, y - 9, 14, 10, kind, 2)
        sheet.text(x + 20, y, said, "quiet small")
        x += 20 + len(said) * 6.2 + 18
    for style, said in (
        ("limit", "target for p50"),
        ("limit tail", "target for p95"),
    ):
        sheet.line(x + 4, y - 12, x + 4, y + 3, style)
        sheet.text(x + 12, y, said, "quiet small")
        x += 12 + len(said) * 6.2 + 18
    sheet.line(x, y - 4, x + 18, y - 4, "whisker")
    sheet.line(x + 18, y - 7, x + 18, y - 1, "whisker")
    sheet.text(x + 25, y, "from p50 to p95; the scale is logarithmic", "quiet small")


def peers_picture(found: Found) -> str:
    """The same job on each peer: a panel for each thing that was measured, shorter is better."""
    rows: Sequence[Found] = [row for row in found["rows"] if not row.get("skipped")]
    sheet = Sheet(WIDTH)
    sheet.text(MARGIN, 36, "The same job, side by side", "title")
    sheet.text(
        MARGIN,
        56,
        "Medians of one run on one machine; shorter is better.",
        "quiet small",
    )
    gap = 36.0
    width = (WIDTH - 2 * MARGIN - gap) / 2
    height = 34 + len(rows) * 24 + 18
    for number, (metric, title, unit) in enumerate(METRICS):
        x = MARGIN + (width + gap) * (number % 2)
        y = 84 + height * (number // 2)
        _panel(sheet, rows, (metric, title, unit), (x, y, width))
    return sheet.picture(84 + height * 2, "bilt-mcp and its peers doing the same job")


def _panel(
    sheet: Sheet,
    rows: Sequence[Found],
    metric: tuple[str, str, str],
    place: tuple[float, float, float],
) -> None:
    name, title, unit = metric
    x, y, width = place
    sheet.text(x, y + 12, title, "head")
    names = min(max(len(row["peer"]) for row in rows) * WIDE, 190) + 10
    is_cancel = name == "cancel_dead_ms"
    values = [middle(row, name) or 0 for row in rows]
    left, longest = x + names, width - names - (150 if is_cancel else 76)
    sheet.line(left, y + 24, left, y + 30 + len(rows) * 24, "grid")
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        foot = y + 44.5 + number * 24
        ours = row["peer"] == OURS
        alive = row.get("survivors_after") if is_cancel else None
        said = dead(row) if is_cancel else amount(middle(row, name), unit)
        sheet.text(left - 8, foot, row["peer"], "strong" if ours else "", anchor="end")
        long = max(longest * value / max(values), 2) if value and not alive else 0
        if long:
            kind = "reached" if ours else "plain"
            sheet.box(left, foot - 4.5 - BAR / 2, long, BAR, kind, 2)
        sheet.text(
            left + long + 8,
            foot,
            said,
            "number strong" if ours else "number quiet",
            warning=f"{told(alive)} left alive" if alive else "",
        )
