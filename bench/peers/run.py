"""Runs the same job on bilt-mcp and on its peers, side by side in one run, each in an environment of its own.

    make bench-peers                                       10 rounds, about ten minutes
    make bench-peers ARGS=--quick                          3 rounds
    make bench-peers ARGS="--only dbos --json dbos.json"
    make bench-peers ARGS="--driver mine.py"               a driver of yours; bench/peers/peer_lines.py

The job is three processes, one of which leaves into a session of its own. Measured are: start (the call to the job's
first instruction), cancel (the call to its answer, and to everything dead), what is left alive at the answer and
after 10 s (which is then killed), memory of the peer's servers and workers, and the first answer after a start.
The first run installs the peers from the package index, with pinned versions, into build/peers. A peer that cannot
be installed or started is left out, and the table says why. It needs Linux.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from drive import BACKGROUND_JOB, KYOO, Driven, Floor, Ours, Peer, Tools
from install import Unavailable, installed, version
from known import HERE, KNOWN, Known, forms
from rounds import JOB, Make, Row, measure

from bilt_mcp.bench.figures import percentile, told
from bilt_mcp.bench.machine import load, machine
from bilt_mcp.bench.product import scratch
from bilt_mcp.state import VERSION

HEAD = (
    *("peer", "version", "start ms", "cancel answered ms", "all dead ms"),
    *("alive at answer", "alive after", "MiB", "first answer ms", "n"),
)


def maker(known: Known, *, may_install: bool = True) -> Make:
    """How a known peer is made; installs it where that is needed. Raises `Unavailable`."""
    python = installed(known, may_install=may_install)
    match known.name:
        case "floor" | "killpg":
            return partial(Floor, knows=known.name == "floor")
        case "bilt-mcp":
            return Ours
        case "kyoo":
            return partial(Tools, argv=(str(python.with_name("kyoo")), "mcp"), calls=KYOO)
        case "mcp-background-job":
            command = str(python.with_name("mcp-background-job"))
            return partial(Tools, argv=(command,), calls=BACKGROUND_JOB)
        case _:
            script, *rest = known.driver
            argv = (str(python), str(HERE / script), *rest)
            return partial(Driven, argv=argv)


def given(script: str) -> tuple[Known, Make]:
    """A driver that is not ours, run with this interpreter."""
    path = Path(script).resolve()
    known = Known(path.stem, f"the driver {path.name}", driver=(str(path),))

    def make(project: Path) -> Peer:
        return Driven(project, (sys.executable, str(path)))

    return known, make


def chosen(only: Sequence[str] | None) -> list[Known]:
    """The known peers of these names, or all."""
    return [known for known in KNOWN if not only or known.name in only]


def cells(row: Row) -> tuple[str, ...]:
    """A row as a line of the table: p50 (p95)."""
    if row.skipped:
        return (row.peer, row.version or "", f"skipped: {row.skipped}")
    dead = _spread(row.dead)
    if row.never:
        dead = f"never; what died {_spread(row.last_death)}" if row.last_death else "never"
    return (
        row.peer,
        row.version or "",
        _spread(row.start),
        _spread(row.answer),
        dead,
        _count(row.at_answer),
        _count(row.after),
        "" if row.memory_mib is None else told(row.memory_mib),
        _spread(row.first),
        str(len(row.start)),
    )


def _spread(samples: Sequence[float]) -> str:
    if not samples:
        return ""
    return f"{told(percentile(samples, 50))} ({told(percentile(samples, 95))})"


def _count(counts: Sequence[int]) -> str:
    return told(sum(counts) / len(counts)) if counts else ""


def show(rows: Sequence[Row], facts: dict[str, str], *, to_stderr: bool) -> None:
    """Print the table, how each peer was set up, and the machine."""
    out = sys.stderr if to_stderr else sys.stdout
    lines = [HEAD, *map(cells, rows)]
    widths = [
        max(len(line[column]) for line in lines if len(line) == len(HEAD))
        for column in range(len(HEAD))
    ]
    for number, line in enumerate(lines):
        short = len(line) < len(HEAD)
        print(
            "  ".join(
                cell if short and column == 2 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=False))
            ).rstrip(),
            file=out,
        )
        if number == 0:
            print("  ".join("-" * width for width in widths), file=out)
    print(
        f"\nTimes are p50 (p95); alive: of the job's {JOB} processes, mean of the rounds.\n",
        file=out,
    )
    for row in rows:
        print(textwrap.fill(f"{row.peer}: {row.note}", 118, subsequent_indent="    "), file=out)
    print("\n" + ", ".join(f"{name} {value}" for name, value in facts.items()), file=out)


def main() -> int:
    """Run the program; returns its exit code."""
    options = _arguments()
    if sys.platform != "linux":
        print("make bench-peers needs Linux: it counts what is alive in /proc.", file=sys.stderr)
        return 2
    if options.json not in (None, "-"):
        Path(options.json).open("a").close()  # a refusal comes now, and not after ten minutes
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    facts = machine()
    rounds, opens = (1, 1) if options.smoke else (3, 1) if options.quick else (10, 3)
    try:
        rows = _measure(options, options.rounds or rounds, opens)
    except KeyboardInterrupt:
        print("interrupted; what was started is stopped", file=sys.stderr)
        return 130
    facts["load after"] = load()
    show(rows, facts, to_stderr=options.json == "-")
    text = as_json(rows, facts, sys.argv[1:])
    if options.json == "-":
        print(text)
    elif options.json:
        Path(options.json).write_text(text + "\n", "utf-8")
    return 0


def as_json(rows: Sequence[Row], facts: dict[str, str], words: Sequence[str]) -> str:
    """All figures, the machine, and the command that made them: what `make figures` reads."""
    command = (
        f"make bench-peers ARGS={json.dumps(shlex.join(words))}" if words else "make bench-peers"
    )
    kept = {"command": command, "machine": facts, "rows": [row.record() for row in rows]}
    return json.dumps(kept, indent=1)


def _measure(options: argparse.Namespace, rounds: int, opens: int) -> list[Row]:
    skipped: dict[str, str] = {}
    makes: list[tuple[Known, Make]] = []
    known = chosen(options.only)
    for one in known:
        try:
            makes.append((one, maker(one, may_install=not options.no_install)))
        except Unavailable as why:
            print(f"SKIPPED {one.name}: {why}", file=sys.stderr, flush=True)
            skipped[one.name] = str(why)
    drivers = [given(script) for script in options.driver]
    makes += drivers
    others = [one for one, _ in drivers]
    with scratch() as folder:
        measured = {row.peer: row for row in measure(makes, folder / "project", rounds, opens)}
    rows: list[Row] = []
    for form in (form for one in [*known, *others] for form in forms(one)):
        row = measured.get(form.name)
        if row is None:
            row = Row(form.name, form.note, skipped=skipped[form.known.name])
        row.version = VERSION if form.known.name == "bilt-mcp" else version(form.known)
        rows.append(row)
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/peers/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [known.name for known in KNOWN]
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=names, help=f"one of: {', '.join(names)}"
    )
    parser.add_argument(
        "--driver", action="append", default=[], metavar="FILE", help="measure this driver as well"
    )
    parser.add_argument(
        "--no-install", action="store_true", help="skip what is not installed already"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there; - is the output")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
