"""Numbered SQL files, each applied exactly once, whoever comes first."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from .driver import sqlite3
from .errors import StoreUnavailable

STORE = "sqlite"
"""The migrations of the sessions; `access` and `limits` are those of what stands beside them."""


def migrations(kind: str = STORE) -> list[tuple[int, str]]:
    """The numbers and texts of `migrations/<kind>/NNNN_name.sql`, in order."""
    folder = files("bilt_mcp.state") / "migrations" / kind
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text("utf-8")) for name in found]


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def migrate(connection: sqlite3.Connection, name: str, kind: str = STORE) -> int:
    """Bring the schema of a database of this kind up to date; returns its version.

    The version is read again inside the write transaction, so of many processes that start together one does
    the work and the others find it done. Raises `StoreUnavailable` for a schema that is newer than this program.
    """
    known = migrations(kind)
    newest = known[-1][0]
    found = _version(connection)
    if found < newest:
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = _version(connection)
            for number, script in known:
                if number > found:
                    for statement in statements(script):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number}")
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        found = max(found, newest)
    if found > newest:
        raise StoreUnavailable(
            f"The store {name} was made by a newer bilt-mcp (schema {found}; this one knows {newest}). Upgrade "
            "bilt-mcp, or use another store: --store PATH or BILT_STORE.",
            store=name,
        )
    return found


def refuse_foreign(connection: sqlite3.Connection, name: str) -> None:
    """Raise `StoreUnavailable` for another program's database, before anything is changed in it."""
    connection.execute(
        "BEGIN"
    )  # both answers of one moment: somebody may just be making our tables
    try:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        foreign = tables > 0 and _version(connection) == 0
    finally:
        connection.rollback()
    if foreign:
        raise StoreUnavailable(
            f"{name} is the database of another program; nothing was changed in it. Use another place for the "
            "store: --store PATH or BILT_STORE.",
            store=name,
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
