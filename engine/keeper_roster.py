"""The list of a step's processes on disk, for the sweep after worker and keeper both died.

Part of the keeper's program (see keeper.py): standard library only, quick to import.
"""

# ruff: noqa: SIM105 - contextlib would cost every step several milliseconds

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .keeper_family import boot_id
    from .keeper_output import create
else:
    from keeper_family import boot_id
    from keeper_output import create


class Roster:
    """A file of one line `# <boot id>`, then a line `<pid> <start ticks>` for each process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._boot = boot_id()
        self._kept: dict[int, int] | None = None

    def keep(self, found: dict[int, int]) -> None:
        """Write the list if it changed, whole or not at all; a full disk is tried again later."""
        if found == self._kept:
            return
        lines = [f"# {self._boot}", *(f"{pid} {ticks}" for pid, ticks in found.items())]
        try:
            fd = create(self.path + ".new")
            try:
                os.write(fd, ("\n".join(lines) + "\n").encode())
            finally:
                os.close(fd)
            os.rename(self.path + ".new", self.path)
            self._kept = found
        except OSError:
            pass

    def remove(self) -> None:
        """Take the list away: nothing on it is alive."""
        try:
            os.unlink(self.path)
        except OSError:
            pass
