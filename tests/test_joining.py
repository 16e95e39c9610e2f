"""How the small process of a client finds its way: places, arguments, frames, and what it loads for that."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bilt_mcp.server import joining
from bilt_mcp.server.frames import Frames, NotAFrame, frame, pack, unpack
from bilt_mcp.server.joining import folder_of
from bilt_mcp.server.shim import plainly_asked
from bilt_mcp.state import StoreLocation

FRAMES = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=12
)


@given(sent=FRAMES, cuts=st.data())
def test_however_the_stream_is_cut_the_frames_are_the_same(
    sent: list[tuple[int, int, bytes]], cuts: st.DataObject
) -> None:
    data = b"".join(frame(*one) for one in sent)
    places = cuts.draw(st.lists(st.integers(0, len(data)), max_size=20).map(sorted))
    frames = Frames()
    parts = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert [one for part in parts for one in frames.feed(part)] == sent


def test_a_frame_that_is_too_long_is_no_frame() -> None:
    with pytest.raises(NotAFrame):
        Frames().feed(b"\x02" + b"\0" * 4 + b"\xff" * 4)


@given(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\0", b"")), min_size=1))
def test_packed_texts_come_out_as_they_were(texts: list[bytes]) -> None:
    assert unpack(pack(texts)) == texts


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("things")
    for name in ("file", "file.db", ".db"):
        (folder / name).touch()
    for name in ("folder", "folder.db"):
        (folder / name).mkdir()
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *("file", "file.db", ".db", "folder", "folder.db", "new", "new.db", "new.sqlite3"),
        *(".sqlite", "a.b/new", "new.DB", "new.", "folder/..", "é.db"),
    ],
)
def test_both_ways_find_the_same_folder(things: Path, name: str) -> None:
    given_ = f"{things}/{name}"
    assert Path(folder_of(given_)) == StoreLocation.of(given_).folder


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--help",), ("--version",), ("confirm",), ("--proj", "."), ("--project",), ("-x",)),
        *(("--project", "missing"), ("--project=missing",), ("--no-resident",), ("extra",)),
        *(("--store", "~nobody-of-this-name/store"), ("--project", "~nobody-of-this-name")),
    ],
)
def test_whatever_is_not_plain_is_left_to_the_whole_program(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert plainly_asked(arguments, {"HOME": str(tmp_path)}) is None


def test_places_are_found_as_the_whole_program_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    home = {"HOME": "/h"}
    found = plainly_asked((), home)
    assert found is not None
    assert (Path(found.project), found.store) == (tmp_path, "/h/.bilt")
    found = plainly_asked(("--store=s", "--project", "p"), {**home, "BILT_STORE": "other"})
    assert found is not None
    assert (found.project, found.store) == (str(tmp_path / "p"), str(tmp_path / "s"))
    found = plainly_asked((), {**home, "BILT_PROJECT": "p", "BILT_STORE": "/x/"})
    assert found is not None
    assert (found.project, found.store) == (str(tmp_path / "p"), "/x")


def test_those_who_wait_for_what_another_one_starts_do_not_hold_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty of them, each looking 300 times a second, made it take three times as long."""
    clock = Clock()
    monkeypatch.setattr(joining, "time", clock)
    tmp_path.chmod(0o700)
    asked = joining.Asked(str(tmp_path), str(tmp_path), {})
    with (tmp_path / f"serve-{asked.identity}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert joining.join(asked) is None
    assert 100 <= clock.naps <= 60 * joining.START_SECONDS


class Clock:
    """A `time` that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.naps = 0
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        self._now += seconds


def test_the_small_process_loads_only_what_it_needs() -> None:
    code = "import sys; import bilt_mcp.server.__main__; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dear = {"argparse", "collections", "json", "pathlib", "re", "socket", "subprocess", "typing"}
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
    )
    new = set(done.stdout.split()) - set(bare.stdout.split())
    assert new & dear == set()
    assert len([name for name in new if not name.startswith("bilt_mcp")]) <= 8, sorted(new)


@pytest.mark.parametrize("name", ["server/relay.py", "state/migrations/sqlite/0001_initial.sql"])
def test_code_is_other_code_as_soon_as_a_file_of_it_changes(tmp_path: Path, name: str) -> None:
    source = Path(joining.__file__).parent.parent
    for folder in ("engine", "server", "state", "tools"):
        shutil.copytree(source / folder, tmp_path / "bilt_mcp" / folder)
    code = "from bilt_mcp.engine import code_identity; print(code_identity())"

    def identity() -> str:
        environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.check_output([sys.executable, "-c", code], env=environ, text=True)

    before = identity()
    assert identity() == before
    with (tmp_path / "bilt_mcp" / name).open("a") as file:
        file.write("\n")
    assert identity() != before
