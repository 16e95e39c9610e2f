"""Bugs to plant in what is measured, and in what is shown of it."""

from __future__ import annotations

from .plant import Plant, plant, within

FIGURES = "test_figures"
ELSEWHERE = (
    "test_bench.py::test_where_it_cannot_measure_it_says_so_and_imports_nothing_that_is_not_there"
)

PLANTS: tuple[Plant, ...] = (
    plant(
        "bench: the ratio is upside down",
        within("bench/figures.py", FIGURES),
        "statistics.median(self.ours) / statistics.median(self.floor)",
        "statistics.median(self.floor) / statistics.median(self.ours)",
    ),
    plant(
        "bench: survivors do not miss a target",
        within("bench/figures.py", FIGURES),
        '        if self.counts.get("survivors"):\n            return False\n',
        "",
    ),
    plant(
        "bench: a bar is drawn from the end of the axis",
        within("bench/plot.py", FIGURES),
        "one, end = axis.at(1), axis.at(row",
        "one, end = axis.left, axis.at(row",
    ),
    plant(
        "bench: a page without figures is left as it is",
        within("bench/tables.py", FIGURES),
        '            raise NoFigures(f"the page asks for {kind}, which were not given")\n',
        "            return match.group()\n",
    ),
    plant(
        "bench: where /proc is missing it breaks in the middle",
        within("bench/program.py", ELSEWHERE),
        'if sys.platform != "linux":',
        'if sys.platform == "other":',
    ),
)
