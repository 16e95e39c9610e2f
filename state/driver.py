"""Which SQLite the store uses: Python's own, or `pysqlite3` where only that one is free of the WAL-reset bug.

Everything in this folder says `from .driver import sqlite3`.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

Version = tuple[int, int, int]


def has_wal_reset_bug(version: Version) -> bool:
    """Whether this SQLite can lose or corrupt data when a checkpoint and a commit meet (sqlite.org/wal.html, 11)."""
    mended = (3, 44, 6) <= version < (3, 45, 0) or (3, 50, 7) <= version < (3, 51, 0)
    return (3, 7, 0) <= version < (3, 51, 3) and not mended


if not TYPE_CHECKING and has_wal_reset_bug(sqlite3.sqlite_version_info):
    try:
        import pysqlite3.dbapi2 as _other
    except ImportError:
        pass
    else:
        if not has_wal_reset_bug(_other.sqlite_version_info):
            sqlite3 = _other

WAL_RESET_BUG = has_wal_reset_bug(sqlite3.sqlite_version_info)
"""Whether the SQLite in use has the bug. Our own writers take turns (`turn.py`), so they cannot run into it."""
SQLITE_VERSION = sqlite3.sqlite_version
WAL_RESET_NOTE = (
    f"SQLite {SQLITE_VERSION} has the WAL-reset bug (sqlite.org/wal.html). The writers of bilt-mcp take turns, so they "
    "cannot run into it; pip install 'bilt-mcp[sqlite]' brings a SQLite without it."
    if WAL_RESET_BUG
    else ""
)
"""For `--version` and the log; empty without the bug."""

__all__ = ["SQLITE_VERSION", "WAL_RESET_BUG", "WAL_RESET_NOTE", "has_wal_reset_bug", "sqlite3"]
