"""The versions that make a difference to a store."""

import sqlite3

VERSION = "0.1.0"
"""This program's; `pyproject.toml` says the same, and a test holds them equal."""

SQLITE_VERSION = sqlite3.sqlite_version
"""The SQLite library's."""
