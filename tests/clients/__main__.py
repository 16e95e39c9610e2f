"""Runs every client that we know of against the server, over stdio or HTTP, each in an environment of its own.

    make clients                                     all but the heavy ones: some five minutes
    make clients ARGS="--only langchain --only crewai"
    make clients ARGS="--heavy --json docs/clients.json"; then `make figures` puts the table into README.md

Each lists the tools, starts a build, waits for it, reads what it said, cancels a running step of several processes,
comes to a gate, which its user answers if it can ask one, and is refused twice: the caller must be able to read why,
as JSON. What each saw is compared with what is documented, and who is alive is asked of the kernel. The first run
installs the clients from the package indexes, with pinned versions, into build/clients. A client that cannot be
installed is left out, and the table says why. It needs Linux.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import sys
from pathlib import Path

from rich.console import Console

from bilt_mcp.bench.machine import machine
from bilt_mcp.tools import TOOLS

from .check import ABILITIES, asks, problems
from .environments import PLACE, Unavailable, installed, resolve
from .known import DRIVERS, KNOWN, Known
from .place import DriverFailed, http_server, place, run
from .row import Row, show


def meet(known: Known, start: list[str]) -> Row:
    """Let one client do all that is asked of it; `start` is how its drivers are started."""
    row = Row.of(known)
    with place() as folder:
        argv = [*start, str(_driver(known)), *filter(None, [known.option])]
        try:
            if known.http:
                with http_server(folder) as where:
                    seen = run(argv, folder, where)
            else:
                seen = run(argv, folder)
        except DriverFailed as why:
            row.wrong = dict.fromkeys(ABILITIES, str(why))
            return row
        row.wrong = problems(seen, [tool.name for tool in TOOLS])
    row.protocol, row.seconds = seen.get("protocol"), seen["seconds"]
    row.asks = asks(seen)
    row.success, row.failure = seen["how"], seen["refused"]["how"]
    return row


def _driver(known: Known) -> Path:
    """The driver, from where its language finds the client: JavaScript looks beside the program."""
    if known.npm:
        for script in DRIVERS.glob("*.mjs"):
            shutil.copy(script, PLACE / known.environment)
        return PLACE / known.environment / known.driver
    return DRIVERS / known.driver


def as_json(rows: list[Row], words: list[str]) -> str:
    """All of it, the machine, and the command that made it: what `make figures` reads."""
    command = f"make clients ARGS={json.dumps(shlex.join(words))}" if words else "make clients"
    kept = {"command": command, "machine": machine(), "rows": [row.record() for row in rows]}
    return json.dumps(kept, indent=1)


def main() -> int:
    """Run the program; returns 1 when a client could not do something, 2 where it cannot run."""
    options = _arguments()
    if sys.platform != "linux":
        print("make clients needs Linux: it counts what is alive in /proc.", file=sys.stderr)
        return 2
    chosen = [known for known in KNOWN if not options.only or known.name in options.only]
    if options.resolve:
        for known in {known.environment: known for known in chosen if not known.npm}.values():
            resolve(known)
            print(known.pins)
        return 0
    if options.json not in (None, "-"):
        Path(options.json).open("a").close()  # a refusal comes now, and not after minutes
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=options.json == "-", highlight=False)
    if not console.is_terminal:
        console.width = 180
    rows: list[Row] = []
    for number, known in enumerate(chosen, 1):
        with console.status(f"{number} of {len(chosen)}: {known.name}"):
            try:
                if known.mebibytes and not (options.only or options.heavy):
                    raise Unavailable(f"it installs {known.mebibytes} MiB; ask for it with --heavy")
                row = meet(known, installed(known, may_install=not options.no_install))
            except Unavailable as why:
                row = Row.of(known)
                row.skipped = str(why)
            except KeyboardInterrupt:
                print("interrupted; what was started is stopped", file=sys.stderr)
                return 130
        console.print(row.told(), markup=False, soft_wrap=True)
        rows.append(row)
    show(rows, console)
    if options.json == "-":
        print(as_json(rows, sys.argv[1:]))
    elif options.json:
        Path(options.json).write_text(as_json(rows, sys.argv[1:]) + "\n", "utf-8")
    return 0 if all(row.fine for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [known.name for known in KNOWN]
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=names, help=f"one of: {', '.join(names)}"
    )
    parser.add_argument(
        "--no-install", action="store_true", help="skip what is not installed already"
    )
    parser.add_argument("--heavy", action="store_true", help="also those that install very much")
    parser.add_argument(
        "--resolve", action="store_true", help="make the Python pins anew, and run nothing"
    )
    parser.add_argument("--json", metavar="FILE", help="write all of it there; - is the output")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
