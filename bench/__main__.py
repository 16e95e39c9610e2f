"""`python -m bilt_mcp.bench` is `bilt-mcp bench`."""

import sys

from .program import main

if __name__ == "__main__":
    sys.exit(main())
