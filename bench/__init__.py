"""`bilt-mcp bench`: what each thing costs on this machine, beside the least that could do the same.

Nothing that serves or runs workflows imports it.
"""

from .program import main

__all__ = ["main"]
