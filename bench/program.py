"""The command `bilt-mcp bench`: its options, its table, its file, its exit code."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from .figures import as_json, show

DESCRIPTION = """\
Measures bilt-mcp on this machine as its users meet it: real servers over real stdio, a real worker, real steps.

Each figure stands beside a floor: the least that could do the same, measured in the same run. Floor and ours take
turns, so that a busy machine hits both, and percentiles are of all samples. Nothing is left behind, also when it is
interrupted: it works in a temporary folder with a store of its own.
"""
NAMES = ("warm", "cold", "cancel", "start", "beside", "calls", "store", "output", "waiting", "http")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table; `arguments` are what follows `bench`, by default the command line's.

    Returns 0; 1 with `--check` when a target was missed; 2 where it cannot run; 130 when it was interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = _parser().parse_args(words)
    if sys.platform != "linux":
        print(
            "bilt-mcp bench needs Linux: it asks the kernel, in /proc, what is alive and how large it is. "
            "On Windows run it in WSL2, on macOS in a Linux container.",
            file=sys.stderr,
        )
        return 2
    if given.json not in (None, "-"):
        try:
            Path(given.json).open("a").close()
        except OSError as error:  # said now, and not after ten minutes
            print(f"bilt-mcp bench: cannot write {given.json}: {error.strerror}", file=sys.stderr)
            return 2
    # Only now: what measures needs what only Linux has.
    from .interrupts import interrupted_once

    try:
        with interrupted_once():
            from .machine import load, machine
            from .measure import FULL, QUICK, SMOKE, measure

            facts = machine()
            count = SMOKE if given.smoke else QUICK if given.quick else FULL
            rows = measure(set(given.only or NAMES), count)
    except KeyboardInterrupt:
        print("interrupted; what was started is stopped", file=sys.stderr)
        return 130
    facts["load after"] = load()
    show(rows, facts, to_stderr=given.json == "-")
    text = as_json(rows, facts, shlex.join(["bilt-mcp", "bench", *words]))
    if given.json == "-":
        print(text)
    elif given.json:
        Path(given.json).write_text(text + "\n", "utf-8")
    missed = [row.name for row in rows if row.ok is False]
    if given.check and missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bilt-mcp bench",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: two or three minutes instead of ten"
    )
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only",
        action="append",
        choices=NAMES,
        help=f"only these rows; may be repeated: {', '.join(NAMES)}",
        metavar="NAME",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there; - is the output")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    return parser
