"""How this program was told to run: read once from the command line and the environment, then passed down."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bilt_mcp.state import IDLE_SECONDS

LOCAL_ACCOUNT = "local"
"""The account of this machine's user: what stdio, the terminal and the local pages act as."""


class ConfigError(Exception):
    """Something about the configuration that the user must correct; the text says what."""


@dataclass(frozen=True)
class Config:
    """Everything that a server needs to know."""

    project: Path
    store: Path
    account: str = LOCAL_ACCOUNT
    is_host: bool = False
    """Whether `project` is somebody else's: calls that name no project are then about the account's newest."""
    projects: Path | None = None
    """Where new projects are made; None: in the store's folder."""
    worker_idle_seconds: float = IDLE_SECONDS
    environ: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """The variables from which steps get theirs; hidden, because it may hold secrets."""

    @property
    def terminal(self) -> str:
        """The program as a person has to call it to reach this store."""
        store = self.store.expanduser().absolute()
        if store == _default_store(self.environ).expanduser():
            return "bilt-mcp"
        return f"bilt-mcp --store {shlex.quote(str(store))}"

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        project: str | Path | None = None,
        store: str | Path | None = None,
    ) -> Config:
        """What was given wins over the variables BILT_PROJECT, BILT_STORE, BILT_PROJECTS, BILT_WORKER_IDLE.

        The default project is the current folder, the default store `~/.bilt`: MCP clients pass on hardly any
        variables, so it must not depend on others. Raises `ConfigError` with every problem at once.
        """
        environ = os.environ if environ is None else environ
        problems: list[str] = []
        named = project or environ.get("BILT_PROJECT") or "."
        folder = _folder(named)
        if folder is None:
            problems.append(f"the project {named} is not a folder (--project, BILT_PROJECT)")
        idle = environ.get("BILT_WORKER_IDLE") or str(IDLE_SECONDS)
        try:
            idle_seconds = float(idle)
        except ValueError:
            idle_seconds = -1.0
        if not 0 <= idle_seconds <= 86_400:
            problems.append(f"BILT_WORKER_IDLE is {idle!r}; it must be seconds, from 0 to 86400")
        place = Path(store or environ.get("BILT_STORE") or _default_store(environ))
        try:
            place.expanduser()
        except RuntimeError:
            problems.append(f"the store {place} is in no known home folder (--store, BILT_STORE)")
        projects = environ.get("BILT_PROJECTS")
        if projects and not Path(projects).is_absolute():
            problems.append(f"BILT_PROJECTS is {projects!r}; it must be the whole path of a folder")
        if problems or folder is None:
            raise ConfigError("; ".join(problems))
        return cls(
            project=folder,
            store=place,
            projects=Path(projects) if projects else None,
            worker_idle_seconds=idle_seconds,
            environ=dict(environ),
        )


def _folder(given: str | Path) -> Path | None:
    """The folder itself, or None where there is none, or none whose path can be kept as text."""
    try:
        folder = Path(given).expanduser().resolve()
        str(folder).encode()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, UnicodeEncodeError):
        return None


def _default_store(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or "~") / ".bilt"
