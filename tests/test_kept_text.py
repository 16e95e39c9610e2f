"""Ranges of lines out of files: where they begin and end, what is taken out, and how little memory it takes."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from collections.abc import Generator
from pathlib import Path

import pytest

from bilt_mcp.engine.artifacts import Artifacts
from bilt_mcp.engine.kept_text import CHUNK_BYTES, LEAD_BYTES, Extents, open_file, read_lines
from bilt_mcp.engine.live_log import open_live_log
from bilt_mcp.engine.safe_text import REDACTED, Redactor
from bilt_mcp.engine.step_log import EDGE_BYTES, log_paths, read_log
from bilt_mcp.state import KeptText, LineRange, Withheld

SECRET = "correct-horse-battery"
NONE = Redactor()
FEW = 50_000


def lines_of(text: bytes, first: int = 1, lines: int = 10**6, **more: bool) -> KeptText:
    return read_lines(Extents(text), NONE, LineRange(first, lines, FEW), **more)


# -- ranges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "lines", "found"),
    [
        (1, 10, (1, 5, "a\nb\nc\nd\ne\n")),
        (1, 2, (1, 2, "a\nb\n")),
        (3, 2, (3, 4, "c\nd\n")),
        (5, 9, (5, 5, "e\n")),
        (6, 1, (6, 5, "")),
        (10**9, 1, (6, 5, "")),
        (-1, 9, (5, 5, "e\n")),
        (-2, 1, (4, 4, "d\n")),
        (-99, 2, (1, 2, "a\nb\n")),
    ],
)
@pytest.mark.parametrize("last", [b"\n", b""])
def test_a_range_has_exactly_the_lines_that_it_names(
    first: int, lines: int, found: tuple[int, int, str], last: bytes
) -> None:
    text = lines_of(b"a\nb\nc\nd\ne" + last, first, lines)
    assert (text.first, text.last, text.text) == found
    assert text.total == 5


def test_ranges_that_follow_each_other_are_the_whole_text() -> None:
    whole = "".join(f"line {n} {'x' * (n % 97)}\n" for n in range(1, 20_001))
    read = Extents(whole.encode())
    for start in (1, 777, 19_999):
        first, found = start, ""
        while True:
            part = read_lines(read, NONE, LineRange(first))
            assert len(part.text) <= 50_000
            assert part.total == 20_000
            found += part.text
            if part.last == part.total:
                break
            first = part.last + 1
        assert found == "".join(whole.splitlines(keepends=True)[start - 1 :])
    last = read_lines(read, NONE, LineRange(-3))
    assert last.text == "".join(whole.splitlines(keepends=True)[-3:])


def test_a_line_that_fits_in_no_answer_is_cut_and_the_next_one_found() -> None:
    text = lines_of(b"x" * (3 * CHUNK_BYTES) + b"\nnext\n")
    long, after = text.text.splitlines()
    assert len(long) == 4096
    assert (after, text.total) == ("next", 2)
    assert lines_of(b"x" * (3 * CHUNK_BYTES) + b"\nnext\n", 2).text == "next\n"


def test_of_a_text_that_grows_half_a_line_is_none() -> None:
    assert lines_of(b"whole\nhalf", growing=True).text == "whole\n"
    assert lines_of(b"whole\nhalf", growing=True).total == 1
    assert lines_of(b"whole\nhalf").total == 2


def test_what_is_shown_is_safe_wherever_the_range_begins() -> None:
    key = "".join(f"{chr(65 + n) * 64}\n" for n in range(20))
    text = (
        f"\x1b[31mred\x1b[0m\u202e\n{SECRET}\n-----BEGIN RSA PRIVATE KEY-----\n{key}"
        "-----END RSA PRIVATE KEY-----\nafter\n"
    )
    for first in range(1, 27):
        shown = read_lines(Extents(text.encode()), Redactor([SECRET]), LineRange(first)).text
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert SECRET not in shown
        assert "CCCC" not in shown
        assert shown.endswith("after\n") or first > 25


def test_a_range_of_a_huge_text_takes_little_memory(tmp_path: Path) -> None:
    size = 64 << 20
    line = b"%015d\n"
    with open(tmp_path / "huge", "wb") as file:
        for n in range(0, size // 16, 65536):
            file.write(b"".join(line % k for k in range(n, n + 65536)))
    with opened(tmp_path, "huge") as text:
        assert text.size == size
        tracemalloc.start()
        try:
            found = read_lines(text, NONE, LineRange(size // 32 + 1, 3))
            end = read_lines(text, NONE, LineRange(-2))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert found.text == "".join(f"{size // 32 + n:015d}\n" for n in range(3))
    assert end.text == "".join(f"{size // 16 - n:015d}\n" for n in (2, 1))
    assert peak < 4 << 20


@contextlib.contextmanager
def opened(folder: Path, name: str) -> Generator[Extents]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with open_file(handle, name) as file:
            assert file is not None
            yield Extents.whole(file)
    finally:
        os.close(handle)


# -- the files of a step that runs -----------------------------------------------------------------


def segment(begin: int, data: bytes) -> bytes:
    return b"%019d %019d\n" % (begin, begin + len(data)) + data


@pytest.mark.parametrize("halves", ["both", "head", "tail", "none"])
def test_a_log_put_together_by_seeking_is_the_one_that_is_read_at_once(
    halves: str, tmp_path: Path
) -> None:
    head, first, second = log_paths(tmp_path, "01.1")
    whole = b"".join(b"line %06d of the output\n" % n for n in range(30_000))
    cut = 10 if halves in ("both", "head") else 0
    start = 500_000 // 25 * 25 + (7 if halves in ("both", "tail") else 0)
    head.write_bytes(whole[: 250_000 - cut])
    middle = start + 100_000
    first.write_bytes(segment(middle, whole[middle : middle + 60_000]) + b"left over")
    second.write_bytes(segment(start, whole[start:middle]))
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with open_live_log(folder, "01.1") as log:
            assert log is not None
            text = log.text()
            assert text.read(0, text.size) == read_log(tmp_path, "01.1")
            assert log.stands()
            first.write_bytes(segment(middle + 200_000, b"newer\n"))
            assert not log.stands()
    finally:
        os.close(folder)


def test_a_gap_in_lines_longer_than_an_edge_is_cut_as_in_the_log_itself(tmp_path: Path) -> None:
    head, first, _ = log_paths(tmp_path, "01.1")
    head.write_bytes(b"a" * (2 * EDGE_BYTES))
    first.write_bytes(segment(10 * EDGE_BYTES, b"b" * (2 * EDGE_BYTES) + b"\nlast\n"))
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with open_live_log(folder, "01.1") as log:
            assert log is not None
            text = log.text()
            assert text.read(0, text.size) == read_log(tmp_path, "01.1")
    finally:
        os.close(folder)


def test_a_range_begins_to_read_far_enough_before_to_know_a_private_key() -> None:
    before = "-----BEGIN PRIVATE KEY-----\n"
    body = "".join(f"{'QUJD' * 16}\n" for _ in range(LEAD_BYTES // 65 - 10))
    text = (before + body + "-----END PRIVATE KEY-----\n").encode()
    last = read_lines(Extents(text), NONE, LineRange(-3))
    assert "QUJDQUJD" not in last.text


# -- artifacts -------------------------------------------------------------------------------------


def test_nothing_outside_the_artifacts_is_read_whatever_is_asked_or_put_there(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    inside = run / "artifacts"
    (inside / "deep").mkdir(parents=True)
    (tmp_path / "outside.txt").write_text("outside")
    (run / "message.txt").write_text("outside")
    (inside / "deep" / "fine.txt").write_text("fine\n")
    (inside / "link").symlink_to(tmp_path / "outside.txt")
    (inside / "folder").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    found = Artifacts(run, NONE)
    assert [file.path for file in found.files(10)] == [b"deep/fine.txt"]
    for path in (
        *(b"link", b"folder/outside.txt", b"pipe", b"deep", b"", b".", b"..", b"../message.txt"),
        *(b"deep/../../message.txt", b"/etc/passwd", b"deep//fine.txt", b"deep/fine.txt/"),
        *(b"a\0b", b"x" * 5000, b"/".join([b"d"] * 4000), os.fsencode(tmp_path / "outside.txt")),
    ):
        assert found.read(path, LineRange()) is None, path
    fine = found.read(b"deep/fine.txt", LineRange())
    assert isinstance(fine, KeptText)
    assert fine.text == "fine\n"
    (tmp_path / "other").symlink_to(run)
    assert Artifacts(tmp_path / "other", NONE).files(10) == []


def test_a_file_that_tells_a_secret_is_withheld_while_it_is_known_and_afterwards(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "artifacts"
    kept.mkdir()
    (kept / "plain.txt").write_text("nothing of it\n")
    (kept / "told.txt").write_text(f"x={SECRET}\n")
    (kept / "told.bin").write_bytes(b"\0\1" * CHUNK_BYTES + SECRET.encode() + b"\0")
    (kept / f"{SECRET}.txt").write_text("its name tells it\n")
    known = Artifacts(tmp_path, Redactor([SECRET]))
    known.remember_safe()
    forgotten = Artifacts(tmp_path, None)
    for artifacts in (known, forgotten):
        plain = artifacts.read(b"plain.txt", LineRange())
        assert isinstance(plain, KeptText)
        for name in (b"told.txt", b"told.bin", f"{SECRET}.txt".encode()):
            with pytest.raises(Withheld):
                artifacts.read(name, LineRange())
        shown = {file.path: file.shown for file in artifacts.files(10) if file.readable}
        assert shown.get(b"plain.txt") == "plain.txt"
        assert all(SECRET not in file.shown for file in artifacts.files(10))
    assert f"{REDACTED}.txt" in [file.shown for file in known.files(10)]
    (kept / "plain.txt").write_text("somebody has changed it since\n")
    with pytest.raises(Withheld):
        forgotten.read(b"plain.txt", LineRange())
    (kept / "late.txt").write_text("nobody has looked at it\n")
    with pytest.raises(Withheld):
        forgotten.read(b"late.txt", LineRange())


def test_names_of_artifacts_are_shown_safe_and_found_as_they_are(tmp_path: Path) -> None:
    kept = tmp_path / "artifacts"
    kept.mkdir()
    names = [b"\xff\xfe.txt", "e\u202eliv.txt".encode(), b"a\nb", b"%2e%2e", b" ", b"?#&"]
    for name in names:
        Path(os.fsdecode(os.fsencode(kept) + b"/" + name)).write_bytes(b"here\n")
    artifacts = Artifacts(tmp_path, NONE)
    found = artifacts.files(10)
    assert sorted(file.path for file in found) == sorted(names)
    for file in found:
        assert "\n" not in file.shown
        assert "\u202e" not in file.shown
        assert file.shown.encode()
        read = artifacts.read(file.path, LineRange())
        assert isinstance(read, KeptText)
        assert read.text == "here\n"


def test_what_is_too_large_is_refused_with_what_there_is(tmp_path: Path) -> None:
    kept = tmp_path / "artifacts"
    kept.mkdir()
    with open(kept / "large.bin", "wb") as file:
        file.write(b"\0")
        file.truncate((1 << 20) + 1)
    (kept / "fits.bin").write_bytes(b"\0" * (1 << 20))
    artifacts = Artifacts(tmp_path, NONE)
    with pytest.raises(Withheld, match="1048577 bytes; at most 1048576"):
        artifacts.read(b"large.bin", LineRange())
    assert artifacts.read(b"fits.bin", LineRange()) == b"\0" * (1 << 20)
