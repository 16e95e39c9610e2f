"""A disk that forgets what was not synced: SQLite over apsw's VFS, and the images that a power cut may leave.

The store under test runs as it is shipped: only the library below it is another one, because the standard
library's SQLite lets nobody look at its writes. What is recorded is what it hands to the operating system.
"""

# apsw's types name one that pyright does not know.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import apsw

BUSY_MILLISECONDS = 10_000
_names = count()


@dataclass(frozen=True)
class Op:
    """Something that was done to a file, or (`ack`) a store's verb that has returned."""

    kind: str
    file: str = ""
    offset: int = 0
    data: bytes = b""


class Disk:
    """Records what SQLite does to the files of one folder. Use it as a context manager."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._vfs: _Vfs | None = None
        self._name = f"bilt-power-{os.getpid()}-{next(_names)}"

    def __enter__(self) -> Disk:
        self._vfs = _Vfs(self._name, self.ops)
        return self

    def __exit__(self, *_: object) -> None:
        if self._vfs is not None:
            self._vfs.unregister()

    def connect(self, path: str | os.PathLike[str], **_: Any) -> Connection:
        """In place of `sqlite3.connect`."""
        return Connection(apsw.Connection(os.fspath(path), vfs=self._name))

    def acknowledge(self) -> None:
        """From now on everything that was written must outlive a power cut."""
        self.ops.append(Op("ack"))


class _Vfs(apsw.VFS):
    def __init__(self, name: str, ops: list[Op]) -> None:
        self._ops = ops
        super().__init__(name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self._ops, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._ops.append(Op("delete", os.path.basename(filename), int(syncdir)))
        super().xDelete(filename, syncdir)


class _File(apsw.VFSFile):
    def __init__(
        self, ops: list[Op], name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._ops = ops
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._file = os.path.basename(path or "")  # a temporary file has no name
        self._makes = self._file.endswith(("-wal", "-journal"))
        super().__init__("unix", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        self._ops.append(Op("write", self._file, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._ops.append(Op("truncate", self._file, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        # The disk is a simulated one: there is no need to wait for the real one. Of a log or journal that may be
        # new, SQLite syncs the folder too, at the first sync after it was opened.
        self._ops.append(Op("sync folder" if self._makes else "sync", self._file))
        self._makes = False


class Row(tuple[Any, ...]):
    """As much of `sqlite3.Row` as the store uses."""

    names: Mapping[str, int]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names[key] if isinstance(key, str) else key)

    def keys(self) -> list[str]:
        return list(self.names)


def _row(cursor: apsw.Cursor, values: tuple[Any, ...]) -> Row:
    row = Row(values)
    row.names = {column[0]: place for place, column in enumerate(cursor.description)}
    return row


class Rows:
    """What a statement gave, as a `sqlite3.Cursor` hands it out."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


class Connection:
    """As much of `sqlite3.Connection` as the store uses, on a recorded disk."""

    row_factory: Any = None
    """Taken from the store and not looked at: every row is a `Row`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        connection.set_busy_timeout(BUSY_MILLISECONDS)

    def execute(self, sql: str, values: Any = ()) -> Rows:
        cursor = self._connection.cursor()
        cursor.row_trace = _row
        return Rows(list(cursor.execute(sql, values)))

    def executemany(self, sql: str, many: Iterable[Any]) -> None:
        for values in many:
            self.execute(sql, values)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def commit(self) -> None:
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")

    def create_function(
        self, name: str, count_: int, function: Callable[..., Any], *, deterministic: bool = False
    ) -> None:
        self._connection.create_scalar_function(name, function, count_, deterministic=deterministic)

    def serialize(self) -> bytes:
        return self._connection.serialize("main")

    def close(self) -> None:
        self._connection.close()


# -- after the cut -----------------------------------------------------------------------------------


@dataclass
class _Found:
    """One file: what is safe (None: it does not exist), and what was done to it since."""

    durable: bytearray | None = None
    pending: list[Op] = field(default_factory=list[Op])

    def sync(self) -> None:
        for op in self.pending:
            self.durable = _done(self.durable, op)
        self.pending.clear()

    def sync_name(self) -> None:
        """That it was deleted, or made, is safe; what is in it need not be."""
        kinds = [op.kind for op in self.pending]
        if "delete" in kinds:
            last = len(kinds) - kinds[::-1].index("delete")
            self.durable, self.pending = None, self.pending[last:]
        if self.pending and self.durable is None:
            self.durable = bytearray()


@dataclass
class Platter:
    """Follows the recorded operations, and says at any moment what a power cut might leave."""

    database: str
    files: dict[str, _Found] = field(default_factory=dict[str, _Found])

    def __post_init__(self) -> None:
        # The program makes the empty file before SQLite comes.
        self.files[self.database] = _Found(bytearray())

    def apply(self, op: Op) -> None:
        if not op.file:
            return
        found = self.files.setdefault(op.file, _Found())
        if op.kind in ("sync", "sync folder"):
            found.sync()
        else:
            found.pending.append(op)
        if op.kind == "sync folder" or (op.kind == "delete" and op.offset):
            for file in self.files.values():
                file.sync_name()

    def cut(self, draw: random.Random) -> dict[str, bytearray]:
        """The files that are there when the power is back: drawn from all that is possible."""
        sector = draw.choice((512, 4096))
        # Nothing, everything, or each by itself, which is what makes a later one come before an earlier one.
        luck = draw.choice((0.0, 0.0, 1.0, 0.1, 0.5, 0.9))
        image: dict[str, bytearray] = {}
        for name, found in self.files.items():
            content = found.durable
            if content is not None and found.pending:
                content = bytearray(content)
            for op in found.pending:
                if op.kind == "delete" and draw.random() >= luck:
                    break  # the folder still names the old file; nobody finds the new one
                if op.kind == "write":
                    content = _written(content, op, sector, luck, draw)
                elif draw.random() < luck:
                    content = _done(content, op)
            if content is not None:
                image[name] = content
        return image


def _done(content: bytearray | None, op: Op) -> bytearray | None:
    if op.kind == "delete":
        return None
    content = bytearray() if content is None else content
    if op.kind == "truncate":
        del content[op.offset :]
    elif op.kind == "write":
        _put(content, op.offset, op.data)
    return content


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _written(
    content: bytearray | None, op: Op, sector: int, luck: float, draw: random.Random
) -> bytearray | None:
    """What is left of a write that was not synced: each of its sectors is there, is not, or is torn."""
    start = 0
    while start < len(op.data):
        end = min(len(op.data), start + sector - (op.offset + start) % sector)
        part = op.data[start:end]
        if 0 < luck < 1 and draw.random() < 0.1:
            part = _torn(part, draw)
        elif draw.random() >= luck:
            part = b""
        if part:
            content = bytearray() if content is None else content
            _put(content, op.offset + start, part)
        start = end
    return content


def _torn(part: bytes, draw: random.Random) -> bytes:
    kept = part[: draw.randrange(len(part))]
    rest = len(part) - len(kept)
    # What follows is the old content, zeros (a file that had grown), or nonsense.
    return draw.choice((kept, kept + bytes(rest), kept + draw.randbytes(rest)))


def place(image: Mapping[str, bytearray], folder: Path) -> None:
    """Put the files of an image into a folder, and nothing else."""
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()
    for name, content in image.items():
        (folder / name).write_bytes(content)


def moments(ops: Sequence[Op], how_many: int, draw: random.Random) -> list[int]:
    """So many moments between two operations, in order; half of them where much is unsynced."""
    rare = [n for n, op in enumerate(ops) if op.kind in ("delete", "truncate", "ack")]
    found = [
        min(len(ops), draw.choice(rare) + draw.randrange(3))
        if rare and draw.random() < 0.3
        else draw.randrange(len(ops) + 1)
        for _ in range(how_many)
    ]
    return sorted(found)
