"""Where a store lives, and whether that is a place where it can live."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import StoreUnavailable

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {"smb2", "smb3", "smbfs", "fuse.rclone", "fuse.s3fs", "fuse.glusterfs", "virtiofs"}
)
"""Types on which SQLite's locks or its shared memory do not hold between hosts."""

_DATABASE_SUFFIXES = frozenset({".db", ".sqlite", ".sqlite3"})


@dataclass(frozen=True)
class StoreLocation:
    """The database file, and the private folder beside it for the worker's lock, logs and runs."""

    database: Path
    folder: Path

    @classmethod
    def of(cls, path: str | Path) -> StoreLocation:
        """From what a user gave: a folder, or a database file (`*.db`, or a file that exists).

        A folder keeps the database in `bilt.db`. A file gets a folder `<file>.d` for the rest.
        """
        given = Path(path).expanduser().absolute()
        if given.is_file() or (given.suffix in _DATABASE_SUFFIXES and not given.is_dir()):
            return cls(given, given.with_name(given.name + ".d"))
        return cls(given / "bilt.db", given)

    @property
    def lock(self) -> Path:
        """Held by the worker for as long as it lives."""
        return self.folder / "worker.lock"

    @property
    def starting(self) -> Path:
        """Held by whoever starts a worker, until that holds its own lock."""
        return self.folder / "worker.starting"

    @property
    def turn(self) -> Path:
        """Held by whoever writes into the database, for as long as it writes."""
        return self.folder / "write.turn"

    @property
    def access(self) -> Path:
        """The database of keys and logins."""
        return self.folder / "access.db"

    @property
    def access_turn(self) -> Path:
        """Held by whoever writes keys and logins."""
        return self.folder / "access.turn"

    @property
    def limits(self) -> Path:
        """The database of what was asked for in the last minute. Made anew when it is damaged or gone."""
        return self.folder / "limits.db"

    @property
    def limits_turn(self) -> Path:
        """Held by whoever counts a request."""
        return self.folder / "limits.turn"

    @property
    def settings(self) -> Path:
        """What holds for this store whoever uses it; made by hand, see `settings.py`."""
        return self.folder / "settings.toml"

    @property
    def reserve(self) -> Path:
        """Given up when the disk is full, to record what must be recorded."""
        return self.folder / "reserve"

    @property
    def sealing_key(self) -> Path:
        """What seals the questions that are put to people on their way through clients."""
        return self.folder / "sealing.key"

    @property
    def control(self) -> Path:
        """The worker's control socket."""
        return self.folder / "worker.sock"

    @property
    def heartbeat(self) -> Path:
        """Touched by the worker every second while it runs something."""
        return self.folder / "worker.beat"

    @property
    def doorbell(self) -> Path:
        """A FIFO on which anybody tells the worker to look at once."""
        return self.folder / "worker.bell"

    @property
    def worker_log(self) -> Path:
        """The worker's own log."""
        return self.folder / "worker.log"

    @property
    def runs(self) -> Path:
        """One folder a workflow: its message, logs and artifacts."""
        return self.folder / "runs"

    @property
    def open(self) -> Path:
        """What workflows that are not final need to run: one file each."""
        return self.folder / "open"

    def run(self, workflow_id: str) -> Path:
        """The folder of one workflow."""
        return self.runs / workflow_id

    def prepare(self) -> None:
        """Make the folders (0700) and the database file (0600), or raise `StoreUnavailable`.

        Files and folders that exist are left as they are, but for a folder of ours that others can read.
        """
        for folder in (self.database.parent, self.folder, self.runs, self.open):
            self._make_folder(folder)
        kind = file_system_of(self.database.parent)
        if kind in NETWORK_FILE_SYSTEMS:
            raise StoreUnavailable(
                f"The store {self.database} is on a network file system ({kind}), where several processes cannot "
                "share it safely. Use a folder on a local disk: --store PATH or BILT_STORE.",
                store=str(self.database),
            )
        self.make_file(self.database)

    def make_file(self, path: Path) -> None:
        """Make an empty database (0600) where there is no file yet, or raise `StoreUnavailable`."""
        try:
            # Only what is new is opened: closing a database takes away every lock that this process has on it.
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(path, flags, 0o600))
        except FileExistsError:
            if not os.access(path, os.R_OK | os.W_OK):
                refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                raise self._cannot("write", path, refused) from None
        except OSError as error:
            raise self._cannot("write", path, error) from error

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
        except OSError as error:
            raise self._cannot("make the folder", folder, error) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StoreUnavailable(
                f"The store's folder {folder} cannot be written by this user. Change its permissions, or choose "
                "another place: --store PATH or BILT_STORE.",
                store=str(self.database),
            )
        ours = folder in (self.folder, self.runs, self.open) and found.st_uid == os.getuid()
        if ours and stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)

    def _cannot(self, what: str, path: Path, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"Cannot {what} {path}: {error.strerror}. Make room or change the permissions, or choose another place "
            "for the store: --store PATH or BILT_STORE.",
            store=str(self.database),
        )


def file_system_of(path: Path) -> str:
    """The type of the file system that holds `path`, as the kernel names it; empty where it does not say."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    target = os.path.realpath(path)
    best, kind = "", ""
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind
