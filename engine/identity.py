"""Which code this is: so that nobody is served, and nothing is run, by other code than was meant.

Standard library only, and a millisecond: every client asks for it at its start.
"""

from __future__ import annotations

import binascii
import os
import sys

FOLDERS = ("engine", "server", "state", os.path.join("state", "migrations", "sqlite"), "tools")


def code_identity() -> str:
    """Eight characters that change with the interpreter, with our code, and when packages are installed."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parts = [sys.version, sys.prefix, package]
    for folder in FOLDERS:
        for entry in sorted(os.scandir(os.path.join(package, folder)), key=lambda e: e.name):
            if entry.name.endswith((".py", ".sql")):
                found = entry.stat()
                parts.append(f"{entry.name} {found.st_mtime_ns} {found.st_size}")
    for path in sys.path:
        # What pip installs or removes changes the folder that it is in.
        if path.endswith("site-packages"):
            parts.append(f"{path} {_changed(path)}")
    return f"{binascii.crc32(os.fsencode(chr(10).join(parts))):08x}"


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
