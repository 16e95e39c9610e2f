"""Runs the official conformance suite of MCP against our server over HTTP, at both revisions.

    make conformance                                     half a minute, and the first time what it installs
    make conformance ARGS="--revision 2026-07-28 --only caching"
    make conformance ARGS="--url http://127.0.0.1:8000/mcp"      a server that runs already

Each line is a scenario, as it ends: what became of it, how many checks count, and if it does not count, why. What is
expected of which scenario stands in tests/conformance/expected.toml; whatever differs is WRONG, also if it passes.
The first run installs the suite, with a pinned version, into build/conformance.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.support.places import open_place

from .expected import EXPECTED, EXTENSION, PACKAGE, Expected, Kind, Verdict
from .report import headline
from .serving import bilt, serving
from .suite import REVISIONS, Outcome, SuiteFailed, Unavailable, install, run_scenarios


def against_ours(revisions: Sequence[str], only: Sequence[str] | None) -> list[Verdict]:
    """Our server, for a project and a store that are thrown away."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bilt-conformance-")))
        place = stack.enter_context(open_place(folder))
        log = folder / "log"
        verdicts = against(stack.enter_context(bilt(place, log)), revisions, only)
        if any(verdict.kind is Kind.WRONG for verdict in verdicts):
            print(log.read_text("utf-8"), file=sys.stderr)
        return verdicts


def against_the_extension(revisions: Sequence[str], only: Sequence[str] | None) -> list[Verdict]:
    """Our tasks extension, with the suite's own tools."""
    verdicts: list[Verdict] = []
    for revision in revisions:
        names = [name for name in EXTENSION.passes.get(revision, ()) if name in (only or [name])]
        if names:
            with serving("tests.conformance.tasks", environ=os.environ) as url:
                verdicts += against(url, [revision], names, EXTENSION)
    return verdicts


def against(
    url: str,
    revisions: Sequence[str],
    only: Sequence[str] | None,
    expected: Expected = EXPECTED,
) -> list[Verdict]:
    """A server that runs; each scenario is a line as it ends."""
    verdicts: list[Verdict] = []

    def told(outcome: Outcome) -> None:
        verdicts.append(expected.judge(outcome))
        print(verdicts[-1].line, flush=True)

    for revision in revisions:
        run_scenarios(url, revision, only, told=told)
    return verdicts


def main() -> int:
    """Run the program; returns 1 when something is not as expected, 2 where it cannot run."""
    given = _arguments()
    revisions = given.revision or REVISIONS
    try:
        print(f"{PACKAGE.name} {PACKAGE.version}", flush=True)
        install()
        run = partial(against, given.url) if given.url else against_ours
        verdicts = run(revisions, given.only)
        if not given.url:
            verdicts += against_the_extension(revisions, given.only)
    except (Unavailable, SuiteFailed) as why:
        print(f"The conformance suite cannot be run here: {why}", file=sys.stderr)
        return 2
    print("", *headline(verdicts), sep="\n")
    return 1 if any(verdict.kind is Kind.WRONG for verdict in verdicts) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="a server that runs already, instead of ours")
    parser.add_argument("--revision", action="append", choices=REVISIONS)
    parser.add_argument("--only", action="append", metavar="SCENARIO")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
