"""What holds for a store whoever uses it: `settings.toml` in its folder. MCP clients pass on hardly any variables."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import StoreUnavailable

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class StoreSettings:
    """The limits of a store."""

    keep_days: float | None = None
    """Sessions that are over and older are deleted with their logs. None: nothing ever is."""
    max_megabytes: float = 10_000.0
    """From this size on no workflow is accepted: the database and what is kept beside it."""
    max_running: int | None = None
    """Workflows that run at once; the others wait. None: the worker's own number, 16 or two for each core."""

    @property
    def keep_milliseconds(self) -> int | None:
        """`keep_days` in milliseconds."""
        return None if self.keep_days is None else round(self.keep_days * 86_400_000)

    @property
    def max_bytes(self) -> int:
        """`max_megabytes` in bytes."""
        return round(self.max_megabytes * MEGABYTE)


def read_settings(path: Path) -> StoreSettings:
    """The settings in a file, the defaults where there is none. Raises `StoreUnavailable` with what to correct."""
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return StoreSettings()
    except OSError as error:
        raise _wrong(path, error.strerror or "cannot be read") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(path, str(error)) from error
    known = [field.name for field in fields(StoreSettings)]
    for name, value in given.items():
        if name not in known:
            raise _wrong(path, f"no such setting: {name}; known: {', '.join(known)}")
        if not _is_positive(value):
            raise _wrong(path, f"{name} must be a number above 0")
        if name == "max_running" and not isinstance(value, int):
            raise _wrong(path, f"{name} must be a whole number")
    return StoreSettings(**given)


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < 1e12


def _wrong(path: Path, problem: str) -> StoreUnavailable:
    return StoreUnavailable(f"Nothing was done. Correct {path}: {problem}", file=str(path))
