"""Makes tables and pictures of what `bilt-mcp bench --json` has kept: nobody edits a figure by hand.

python -m bilt_mcp.bench.picture figures.json                    the table
python -m bilt_mcp.bench.picture figures.json --draw .           figures.svg beside it
python -m bilt_mcp.bench.picture figures.json --fill README.md   the table at its marks in a page
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .plot import figures_picture, peers_picture
from .tables import Found, NoFigures, clients_table, figures_table, fill, peers_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code: 2 when a page asks for what is not there."""
    given = _parser().parse_args(arguments)
    figures = load(given.figures)
    peers = load(given.peers) if given.peers else None
    clients = load(given.clients) if given.clients else None
    try:
        if given.draw is None and not given.fill:
            print(figures_table(figures, given.rows))
            if peers is not None:
                print(peers_table(peers))
            if clients is not None:
                print(clients_table(clients))
        if given.draw is not None:
            _write(given.draw / "figures.svg", figures_picture(figures, given.rows))
            if peers is not None:
                _write(given.draw / "peers.svg", peers_picture(peers))
        for page in given.fill:
            _write(page, fill(page.read_text("utf-8"), figures, peers, clients))
    except NoFigures as error:
        print(f"bilt_mcp.bench.picture: {error}", file=sys.stderr)
        return 2
    return 0


def load(file: Path) -> Found:
    """What was kept in a file."""
    found: Found = json.loads(file.read_text("utf-8"))
    return found


def _write(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    print(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bilt_mcp.bench.picture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figures", type=Path, help="what bilt-mcp bench --json has written")
    parser.add_argument(
        "--peers", type=Path, metavar="JSON", help="what the comparison with peers has written"
    )
    parser.add_argument(
        "--clients", type=Path, metavar="JSON", help="what the run of all clients has written"
    )
    parser.add_argument(
        "--draw", type=Path, metavar="FOLDER", help="draw figures.svg and peers.svg there"
    )
    parser.add_argument(
        "--fill",
        type=Path,
        nargs="+",
        default=[],
        metavar="PAGE",
        help="put the tables between the marks in these pages",
    )
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="NAME", help="only these, in this order"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
