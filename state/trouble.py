"""What went wrong with a file of ours, in words for who must act."""

from __future__ import annotations

import errno
from pathlib import Path

from .driver import sqlite3
from .errors import BiltError, StoreFull, StoreUnavailable
from .reserve import is_full
from .turn import TurnTimeout

TROUBLE = (sqlite3.Error, UnicodeDecodeError, TurnTimeout, OSError)
"""What using a database may raise."""


def fills_disk(path: Path, error: Exception) -> bool:
    """Whether it is because the disk that holds the database has no room."""
    code = getattr(error, "sqlite_errorname", "")
    return (
        code.startswith("SQLITE_FULL")
        or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or (code.startswith("SQLITE_IOERR") and is_full(path.parent))
    )


def is_damage(error: Exception) -> bool:
    """Whether the file is not what it should be."""
    code = getattr(error, "sqlite_errorname", "")
    damaged = code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT"))
    return damaged or isinstance(error, UnicodeDecodeError)


def is_held_up(error: Exception) -> bool:
    """Whether somebody else has it locked."""
    code = getattr(error, "sqlite_errorname", "")
    return code.startswith("SQLITE_BUSY") or isinstance(error, TurnTimeout)


def unavailable(
    path: Path, error: Exception, seconds: float, new: str = "a new store is made"
) -> BiltError:
    """One of `TROUBLE` with the database `path`, where others' locks were waited for `seconds`.

    `new`: what happens when a damaged one is moved away.
    """
    code = getattr(error, "sqlite_errorname", "")
    if fills_disk(path, error):
        told = f"The disk that holds the store {path} is full: nothing was changed. Make room, then call again."
        return StoreFull(told, store=str(path))
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")) or (
        getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS)
    ):
        told = (
            f"The store {path} cannot be written by this user. Change the permissions of the file and its "
            "folder, or choose another place: --store PATH or BILT_STORE."
        )
    elif is_damage(error):
        told = (
            f"The store {path} is damaged or not a bilt store. Move it away together with {path.name}-wal and "
            f"{path.name}-shm (keep them), and call again: {new}."
        )
    elif is_held_up(error):
        told = f"Another process locked the store {path} for {seconds:.0f} s: nothing was changed. Call again."
    else:
        kind = code or type(error).__name__
        told = f"The store {path} failed ({kind}: {error}). Nothing was changed; call again."
    return StoreUnavailable(told, store=str(path))
