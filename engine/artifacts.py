"""The files that steps leave as artifacts: listed and read without ever leaving their folder, or telling a secret.

While a workflow is not final, the values of its secrets are known, and a file is looked through when it is read. Then
they are forgotten; what was looked through by then is on a list, and only that is given out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bilt_mcp.state import KeptFile, KeptText, LineRange, Withheld

from .kept_text import Extents, open_file, open_folder, read_lines, tells
from .safe_text import Redactor, clean

FOLDER = "artifacts"
LIST = "artifacts.safe"
MOST_ENTRIES = 10_000
"""Files and folders that are looked at for a list."""
MOST_DEPTH = 32
MOST_NAME = 1000
"""Characters of a name that are shown."""
MOST_BLOB_BYTES = 1 << 20
MOST_TEXT_BYTES = 1 << 26
MOST_SEARCHED_BYTES = 1 << 24
"""A larger file is not looked through, and so not given out where there are secrets."""
MOST_SEARCHED_IN_ALL = 1 << 26
_PROBE_BYTES = 1 << 16

UNSEARCHED = (
    "It was not looked through for the values of the workflow's secrets (it is too large, there are too many files, "
    "or it has changed since), so it is not given out. A person finds it in the store's folder."
)


class Artifacts:
    """The artifacts of one workflow. `redactor` is None when its secrets are not known any more."""

    def __init__(self, run: Path, redactor: Redactor | None) -> None:
        self._run = run
        self._redactor = redactor

    def files(self, most: int) -> list[KeptFile]:
        """The first `most` files, by name. Links, and what is no file, are none."""
        with open_folder(self._run) as run:
            if run is None:
                return []
            searched = self._searched(run)
            found = sorted(_walk(run))[:most]
            return [self._shown(path, size, searched) for path, size in found]

    def read(self, path: bytes, wanted: LineRange) -> KeptText | bytes | None:
        """Lines of a text, safe to show, or all of any other file; None where there is no such file.

        Raises `Withheld`.
        """
        parts = path.split(b"/")
        if not all(parts) or {b".", b".."} & set(parts) or len(parts) > MOST_DEPTH:
            return None
        with open_folder(self._run) as run:
            if run is None:
                return None
            with open_file(run, FOLDER, *parts) as file:
                if file is None:
                    return None
                self._refuse_untold(run, path, file)
                return _content(Extents.whole(file), self._redactor or Redactor(), wanted)

    def remember_safe(self) -> None:
        """Look through the files while the secrets are known, and keep a list of those that tell none."""
        redactor = self._redactor
        assert redactor is not None
        safe: dict[str, list[int]] = {}
        room = MOST_SEARCHED_IN_ALL
        with open_folder(self._run) as run:
            if run is None:
                return
            for path, size in sorted(_walk(run)):
                room -= size
                if room < 0:
                    break
                with open_file(run, FOLDER, *path.split(b"/")) as file:
                    if file is not None and not _told(path, file, redactor):
                        safe[_key(path)] = _state(file)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with contextlib.suppress(FileNotFoundError):
                os.unlink(LIST, dir_fd=run)  # a step may have put something there
            with open(os.open(LIST, flags | os.O_EXCL, 0o600, dir_fd=run), "w") as kept:
                json.dump(safe, kept)

    def _shown(self, path: bytes, size: int, searched: dict[str, list[int]]) -> KeptFile:
        text = clean(path.decode("utf-8", "replace")).replace("\n", " ")
        if self._redactor is None:
            if _key(path) in searched:
                return KeptFile(path, text[:MOST_NAME], size, True)
            return KeptFile(path, "[withheld]", size, False)
        shown = self._redactor.redact(text)
        return KeptFile(path, shown[:MOST_NAME], size, shown == text)

    def _refuse_untold(self, run: int, path: bytes, file: int) -> None:
        redactor = self._redactor
        if redactor is None:
            if self._searched(run).get(_key(path)) != _state(file):
                raise Withheld(UNSEARCHED)
        elif _told(path, file, redactor):
            raise Withheld(
                "It tells, or may tell, the value of one of the workflow's secrets, so it is not given out."
            )

    def _searched(self, run: int) -> dict[str, list[int]]:
        with open_file(run, LIST) as kept:
            if kept is None:
                return {}
            try:
                found: dict[str, list[int]] = json.loads(Extents.whole(kept).read(0, 1 << 24))
            except ValueError:
                return {}
            return found


def count_files(run: Path) -> int:
    """How many files there are below the artifacts folder of a run: those of which `Artifacts` knows."""
    with open_folder(run) as folder:
        return 0 if folder is None else sum(1 for _ in _entries(folder))


def _walk(run: int) -> Iterator[tuple[bytes, int]]:
    """The files below the artifacts folder, with their sizes; as many as `MOST_ENTRIES` lets be looked at."""
    for path, entry in _entries(run):
        with contextlib.suppress(OSError):
            yield path, entry.stat(follow_symlinks=False).st_size


def _entries(run: int) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
    left = MOST_ENTRIES

    def walk(
        folder: int, name: str, before: bytes, depth: int
    ) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
        nonlocal left
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            here = os.open(name, flags, dir_fd=folder)
        except OSError:
            return
        try:
            inner: list[str] = []
            with os.scandir(here) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        inner.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        yield before + os.fsencode(entry.name), entry
            for found in inner:
                if depth < MOST_DEPTH:
                    yield from walk(here, found, before + os.fsencode(found) + b"/", depth + 1)
        finally:
            os.close(here)

    yield from walk(run, FOLDER, b"", 1)


def _told(path: bytes, file: int, redactor: Redactor) -> bool:
    """Whether a file tells a secret by its name or its content, or is too large to be looked through."""
    if redactor.empty:
        return False
    too_large = os.fstat(file).st_size > MOST_SEARCHED_BYTES
    return redactor.finds_in(path) or too_large or tells(Extents.whole(file), redactor)


def _key(path: bytes) -> str:
    return hashlib.sha256(path).hexdigest()


def _state(file: int) -> list[int]:
    found = os.fstat(file)
    assert stat.S_ISREG(found.st_mode)
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _content(file: Extents, redactor: Redactor, wanted: LineRange) -> KeptText | bytes:
    if _is_text(file):
        if file.size > MOST_TEXT_BYTES:
            raise Withheld(
                f"It has {file.size} bytes; at most {MOST_TEXT_BYTES} of a text are read."
            )
        return read_lines(file, redactor, wanted)
    if file.size > MOST_BLOB_BYTES:
        raise Withheld(
            f"It has {file.size} bytes; at most {MOST_BLOB_BYTES} of a file that is no text are given out. A person "
            "finds it in the store's folder."
        )
    return file.read(0, file.size)


def _is_text(file: Extents) -> bool:
    probe = file.read(0, _PROBE_BYTES)
    if b"\0" in probe:
        return False
    try:
        probe.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut off by the probe.
        return error.start >= len(probe) - 3 and len(probe) == _PROBE_BYTES
    return True
