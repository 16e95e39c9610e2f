"""The program `bilt-mcp`. Alone it speaks MCP on its standard streams, and for that it loads as little as it can."""

from __future__ import annotations

import os
import sys

from .shim import plainly_asked, serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    backlog = None
    asked = plainly_asked(given, os.environ)
    if asked is not None:
        backlog = serve(asked)
        if backlog is None:
            return 0
    from .command import run

    return run(given, backlog)


if __name__ == "__main__":
    sys.exit(main())
