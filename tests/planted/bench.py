"""Bugs to plant in what is measured, and in what is shown of it."""

from __future__ import annotations

from .plant import Plant, plant, within

FIGURES = "test_figures"
SURVIVORS = "test_bench_peers.py::test_who_outlives_a_cancel_is_counted_and_killed"
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
    plant(
        "peers: who outlives a cancel is not counted",
        within("bench/peers/rounds.py", SURVIVORS),
        "row.after.append(len(left))",
        "row.after.append(0)",
    ),
    plant(
        "peers: what is left of a job stays alive",
        within("bench/peers/rounds.py", SURVIVORS),
        "        for process in bearers(marker):\n            kill(process)\n        opened.release()\n"
        '        until(lambda: not bearers(marker), "what is left of the job is gone")\n',
        "        opened.release()\n",
    ),
    plant(
        "peers: only the largest process of a peer is counted",
        within("bench/peers/rounds.py", SURVIVORS),
        "sum(sizes) or None",
        "max(sizes, default=0) or None",
    ),
    plant(
        "peers: a peer that does not start ends the comparison",
        within(
            "bench/peers/rounds.py",
            "test_bench_peers.py::test_a_peer_that_does_not_start_is_named_with_its_reason",
        ),
        "    except Exception as error:\n        for row in rows:",
        "    except KeyError as error:\n        for row in rows:",
    ),
    plant(
        "clients: what a client could not do is not shown",
        within("bench/tables.py", FIGURES),
        'if could else "**no**" for name, could',
        'if could else "yes" for name, could',
    ),
    plant(
        "clients: a client that was not run is left out without a word",
        within("bench/tables.py", FIGURES),
        "* {row['client']}: not run: {row['skipped']}",
        "",
    ),
    plant(
        "bench: a message is acknowledged and not there",
        within(
            "bench/rounds_store.py", "test_bench.py::test_every_row_measures_something_plausible"
        ),
        "            if ours:\n                await store.note(",
        "            if ours:\n                store.note(",
    ),
    plant(
        "bench: what is told to end leaves its builds running",
        within("bench/interrupts.py", "test_bench_interrupted"),
        "_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)",
        "_SIGNALS = (signal.SIGINT, signal.SIGHUP)",
    ),
)
