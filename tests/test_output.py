"""The output of a step, from bytes to messages (CONTRACT section 5)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bilt_mcp.engine.output import (
    MAX_LINE_CHARS,
    MAX_PIECE_BYTES,
    LineReader,
    Notice,
    Pieces,
    Progress,
    parse_command,
)
from bilt_mcp.engine.safe_text import REDACTED, Redactor
from bilt_mcp.engine.step_output import LAST_CHARACTERS, LAST_LINES, TAIL_LINES, StepOutput

from .support.text import HOSTILE_TEXT, SECRET, TOKENS, is_forbidden


def lines_of(data: bytes, secrets: Iterable[str] = (), cuts: Iterable[int] = ()) -> list[str]:
    """Feed `data` in reads that end at `cuts`."""
    reader = LineReader(Redactor(secrets))
    lines: list[str] = []
    start = 0
    for cut in [*sorted(cuts), len(data)]:
        lines += reader.feed(data[start:cut])
        start = max(start, cut)
    return lines + reader.finish()


HOSTILE_BYTES = st.lists(
    st.one_of(
        HOSTILE_TEXT.map(str.encode),
        st.binary(max_size=6),
        st.sampled_from([b"\xe2", b"\x80\xe2", b"\xf0\x9f", b"x" * 5000, b"y" * 9000, b" " * 50])
        | st.sampled_from([SECRET.encode(), TOKENS["GitHub"].encode(), b"\r", b"\r\n", b"\n"])
        | st.sampled_from([b"-----BEGIN PRIVATE KEY-----\n", b"MIIEvQIBADANBgkqhkiG9w0B\n"])
        | st.sampled_from([b"-----END PRIVATE KEY-----\n", b"/usr/lib/node_modules/x\n"]),
    ),
    max_size=12,
).map(b"".join)


REDRAWN_LINES = st.lists(
    st.sampled_from([b"a", b"bc", b" ", b"\r", b"\n", b"\n", b"\x1b[1G", b"\x1b[0m", b"\xc2\x9bG"]),
    max_size=40,
).map(b"".join)


# LineReader


@given(HOSTILE_BYTES | REDRAWN_LINES, st.lists(st.integers(0, 20_000), max_size=6))
@example(b"first\n" + b"\x1b[0m" * 2500 + b"x" * 3000 + b"\nlast\n", [6])
@example(b"a\x1b[1Gb\rc\x1b[", [2, 3, 4, 5])
@example(b"\xf0\x9f\x98\x80\r\n\xf0\x9f", [1, 2, 3, 5])
@example(b"a\n\x1b[0\nb\n \r\n", [4])
@settings(max_examples=100, deadline=None)
def test_where_reads_end_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    whole = lines_of(data, [SECRET])
    assert lines_of(data, [SECRET], cuts) == whole
    assert lines_of(data, [SECRET], range(len(data))) == whole


@given(HOSTILE_BYTES)
@settings(max_examples=120, deadline=None)
def test_every_line_is_bounded_and_clean_and_there_is_one_for_each_newline(data: bytes) -> None:
    lines = lines_of(data, [SECRET])
    assert len(lines) == data.count(b"\n") + (not data.endswith(b"\n") and data != b"")
    for line in lines:
        assert len(line) <= MAX_LINE_CHARS
        assert "\n" not in line
        assert not any(map(is_forbidden, line))
        assert SECRET not in line
        assert TOKENS["GitHub"] not in line


@pytest.mark.parametrize("secret", [SECRET, *TOKENS.values()])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_a_secret_split_by_a_read_does_not_leave(secret: str, ending: bytes) -> None:
    data = f"key {secret} end".encode() + ending
    for cut in range(len(data)):
        (line,) = lines_of(data, [SECRET], [cut])
        assert line.startswith("key [redacted]"), cut


NOISE = ["\x1b[31m", "\x1b[0m", "\u200b", "\u00ad", "\x00", "\x1b]0;t\x07", "\x9b1m", "\U000e0061"]


@given(st.sampled_from([SECRET, *TOKENS.values()]), st.data())
@settings(max_examples=80, deadline=None)
def test_a_secret_split_by_colours_or_invisible_characters_does_not_leave(
    secret: str, data: st.DataObject
) -> None:
    text = ""
    for char in secret:
        text += data.draw(st.sampled_from(["", "", *NOISE])) + char
    cuts = data.draw(st.lists(st.integers(0, len(text) + 20), max_size=4))
    (line,) = lines_of(f"key {text} end\n".encode(), [SECRET], cuts)
    assert line.startswith("key [redacted]")
    assert secret[len(secret) // 2 :] not in line


def test_a_secret_of_several_lines_is_redacted_in_each_line() -> None:
    secret = "first line of it\nshort\nthird line of it\n"
    assert lines_of(f"a\n{secret}".encode(), [secret]) == ["a", REDACTED, "short", REDACTED]


def test_a_secret_longer_than_any_line_is_redacted() -> None:
    secret = "".join(f"{n:08x}" for n in range(3000))
    (line,) = lines_of(f"token {secret} end".encode(), [secret])
    assert "characters cut]" in line
    assert not any(f"{n:08x}" in line for n in range(3000))
    (line,) = lines_of(f"token {secret[:5000]}".encode(), [secret[:5000]])
    assert line.startswith("token [redacted]")
    assert not any(f"{n:08x}" in line for n in range(624))


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"10%\r50%\r100%", "100%"),
        (b"10%\r100%\r\x1b[K", "100%"),
        (b"10%\r100%\r        \r", "100%"),
        (b"10%\r100%\r\r", "100%"),
        (b"\x1b[1G10%\x1b[2K\x1b[1G100%", "100%"),
        (b"10%\xc2\x9bG100%", "100%"),
        (b"".join(b"%d of 9000\r" % n for n in range(9001)), "9000 of 9000"),
    ],
)
def test_only_the_last_frame_of_a_line_that_shows_something_is_kept(
    data: bytes, shown: str
) -> None:
    for cuts in ((), range(len(data) + 20)):
        assert lines_of(data, cuts=cuts) == [shown]
        assert lines_of(b"first\n" + data + b"\nlast\n", cuts=cuts) == ["first", shown, "last"]


def test_windows_newlines_and_blank_lines_are_lines() -> None:
    assert lines_of(b"a\r\n\r\nb\n\n  \nc") == ["a", "", "b", "", "  ", "c"]


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    assert lines_of(b"caf\xe9 \xff\xfe ok\n") == ["caf\ufffd \ufffd\ufffd ok"]
    assert lines_of(b"cut \xe2\x82") == ["cut \ufffd"]


@pytest.mark.parametrize("size", [4096, 4097, 8192, 8193, 100_000, 1_000_000])
def test_a_long_line_is_cut_with_a_mark_that_counts_what_is_missing(size: int) -> None:
    for data in (b"x" * size, b"first\n" + b"x" * size + b"\nlast\n"):
        line = max(lines_of(data, cuts=range(0, size, 7000)), key=len)
        kept, _, mark = line.partition(" […")
        assert len(line) <= MAX_LINE_CHARS
        if size <= MAX_LINE_CHARS:
            assert line == "x" * size
        else:
            assert set(kept) == {"x"}
            assert mark == f"{size - len(kept)} characters cut]"


@given(st.integers(3_500, 9_000))
@settings(max_examples=60, deadline=None)
def test_no_part_of_a_secret_is_left_where_a_long_line_is_cut(offset: int) -> None:
    token = TOKENS["GitHub"]
    for secret in (SECRET, token):
        data = ("\x1b[0m" * 1500 + "." * (offset - 3_400) + secret + "z" * 9000).encode()
        (line,) = lines_of(data, [SECRET])
        assert not any(secret[: n + 1] in line for n in range(8, len(secret)))


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    reader = LineReader(Redactor())
    for _ in range(200):
        assert reader.feed("😀".encode() * 10_000) == []
    kept = sum(len(v) for v in vars(reader).values() if isinstance(v, str))
    assert 0 < kept * 4 <= 64 * 1024
    (line,) = reader.finish()
    assert line.endswith(f" […{2_000_000 - line.count('😀')} characters cut]")


def test_a_private_key_is_redacted_line_by_line_and_what_follows_it_is_not() -> None:
    body = [b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ" + b"%02d" % n for n in range(20)]
    data = b"\n".join(
        [
            b"before",
            b"-----BEGIN RSA PRIVATE KEY-----",
            *body,
            b"Ab3=",
            b"-----END RSA PRIVATE KEY-----",
            b"compiled /usr/lib/node_modules/typescript/lib",
        ]
    )
    for cuts in ((), range(len(data))):
        lines = lines_of(data, cuts=cuts)
        assert lines[0] == "before"
        assert lines[1:23] == [REDACTED] * 22
        assert lines[-1] == "compiled /usr/lib/node_modules/typescript/lib"


def test_a_private_key_on_one_line_is_redacted() -> None:
    key = r"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\nBgkqhkiG\n-----END PRIVATE KEY-----\n"
    assert lines_of(f'{{"private_key": "{key}"}}'.encode()) == ['{"private_key": "[redacted]\\n"}']


def test_the_mention_of_a_private_key_hides_little_of_what_follows() -> None:
    said = [b"expected -----BEGIN PRIVATE KEY----- in key.pem", *[b"at a.b(c.py:1)"] * 20]
    lines = lines_of(b"\n".join([*said, b"see /usr/lib/node_modules/typescript/lib"]))
    assert lines[-1] == "see /usr/lib/node_modules/typescript/lib"


def test_a_reader_can_be_used_again_after_finish() -> None:
    reader = LineReader(Redactor())
    assert reader.feed(b"one\ntwo \xe2") == ["one"]
    assert reader.finish() == ["two \ufffd"]
    assert reader.finish() == []
    assert reader.feed(b"three\n") == ["three"]


# parse_command


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("::progress 40::Bundling", Progress(40, "Bundling")),
        ("::progress 0::", Progress(0, "")),
        ("::progress 100::Done", Progress(100, "Done")),
        ("::progress::Uploading", Progress(None, "Uploading")),
        ("::progress 5::a%0Ab", Progress(5, "a b")),
        ("  ::Progress 40::Bundling", Progress(40, "Bundling")),
        ("::notice::Deployed to https://x.example::1", None),
        ("::notice file=a,line=1::text", Notice("info", "notice", "text")),
        ("::notice::two%0Alines", Notice("info", "notice", "two\nlines")),
        ("::notice::two%0D%0Alines", Notice("info", "notice", "two\nlines")),
        ("::notice::100%25 %250A", Notice("info", "notice", "100% %0A")),
        ("::warning::careful", Notice("info", "warning", "Warning: careful")),
        ("::error title=a b,file=c::broken", Notice("error", "error", "broken")),
    ],
)
def test_a_workflow_command_is_understood(line: str, meant: Progress | Notice | None) -> None:
    if meant is None:
        meant = Notice("info", "notice", "Deployed to https://x.example::1")
    assert parse_command(line) == meant


@pytest.mark.parametrize(
    "line",
    [
        "",
        "::",
        "::::",
        "plain text",
        "see ::progress 40::x",
        ":progress 40::x",
        "::progress 40",
        "::progress 101::x",
        "::progress -1::x",
        "::progress 4.5::x",
        "::progress forty::x",
        "::progress ٤٠::x",
        "::progress::",
        "::notice::",
        "::notice:: %0A",
        "::notice oops::x",
        "::set-output name=a::b",
        "::add-mask::x",
    ],
)
def test_a_malformed_or_unknown_command_is_a_line_of_the_log(line: str) -> None:
    assert parse_command(line) is None


@given(HOSTILE_TEXT)
@settings(max_examples=200, deadline=None)
def test_a_commands_text_is_clean(text: str) -> None:
    for head in ("::notice::", "::progress 1::", "::error a=b::"):
        meant = parse_command(f"{head}x{text}")
        if meant is not None:
            assert not any(map(is_forbidden, meant.text))


def test_escapes_of_a_command_do_not_carry_a_secret_past_the_redactor() -> None:
    secret = "top%secret\nsecond line"
    escaped = secret.replace("%", "%25").replace("\n", "%0A")
    (line,) = lines_of(f"::notice::key {escaped}".encode(), [secret])
    assert parse_command(line) == Notice("info", "notice", "key [redacted]")
    token = TOKENS["GitHub"]
    (line,) = lines_of(f"::notice::{token[:12]}%0D{token[12:]}".encode())
    meant = parse_command(line)
    assert meant is not None
    assert token not in meant.text


# Pieces


@given(st.lists(st.text(st.sampled_from("aé😀 "), max_size=200).map(lambda t: t * 30)))
@settings(max_examples=150, deadline=None)
def test_pieces_are_bounded_and_lose_nothing_that_shows(lines: list[str]) -> None:
    pieces = Pieces()
    made = [piece for line in lines for piece in pieces.add(line)]
    if (last := pieces.flush()) is not None:
        made.append(last)
    assert all(0 < len(piece.encode()) <= MAX_PIECE_BYTES for piece in made)
    assert "".join("".join(made).split()) == "".join("".join(lines).split())


def test_lines_are_joined_until_a_piece_is_full() -> None:
    pieces = Pieces()
    assert pieces.add("a" * 2000) == []
    assert pieces.add("b" * 2095) == []
    assert pieces.add("") == ["a" * 2000 + "\n" + "b" * 2095]
    assert pieces.add("c") == []
    assert pieces.flush() == "\nc"
    assert pieces.flush() is None


def test_blank_lines_alone_make_no_piece() -> None:
    pieces = Pieces()
    assert pieces.add("") == []
    assert pieces.add("   ") == []
    assert pieces.flush() is None


@pytest.mark.parametrize("most", [0, 1, 3, 10_000])
@pytest.mark.parametrize("size", [1, 40, 1000, 4096, 5000])
def test_what_is_said_of_a_flood_is_the_same_however_it_arrives(size: int, most: int) -> None:
    lines = [f"{number} " + "x" * (number * 7 % size) for number in range(max(150, 40_000 // size))]
    lines[len(lines) // 2] += "ü"
    lines[-50] = "::notice::heard"
    lines[-9] = f"and {SECRET}"
    data = "".join(f"{line}\n" for line in lines).encode()
    said: list[list[tuple[str, str]]] = []
    in_blocks = [data[at : at + 4096] for at in range(0, len(data), 4096)]
    for pieces in ([data], in_blocks, data.splitlines(keepends=True)):
        output = StepOutput("build", [SECRET], most)
        for piece in pieces:
            output.feed(piece, 0)
        said.append([(note.content, note.variant) for note in output.finish()])
    assert said[0] == said[1] == said[2]
    assert ("heard", "info") in said[0]
    text = "\n".join(content for content, _ in said[0])
    assert SECRET not in text
    assert f"and {REDACTED}" in text
    shown = [line for line in text.splitlines() if line.split(" ")[0].isdigit()]
    if most > 1000:
        assert shown == [line for line in lines if line[0].isdigit()]
    else:
        left_out = next(content for content, _ in said[0] if "left out here" in content)
        assert int(left_out.split()[1]) == len(lines) - 1 - (len(shown) + 1 - TAIL_LINES)


@pytest.mark.parametrize("most", [0, 2, 10_000])
@given(lines=st.lists(st.text(st.sampled_from("ab "), min_size=1, max_size=300), max_size=60))
@settings(max_examples=50, deadline=None)
def test_the_last_lines_are_the_newest_that_were_told_and_bounded(
    lines: list[str], most: int
) -> None:
    lines = [f"{number} {line}x" for number, line in enumerate(lines)]
    output = StepOutput("build", [], most)
    output.feed("".join(f"{line}\n" for line in lines).encode(), 0)
    output.finish()
    last = output.last_lines
    assert len(last) <= LAST_CHARACTERS
    kept = last.split("\n") if last else []
    assert kept == lines[len(lines) - len(kept) :]
    fits = [n for n in range(LAST_LINES + 1) if len("\n".join(lines[-n:])) < LAST_CHARACTERS]
    assert len(kept) >= min(len(lines), fits[-1])


def test_of_a_last_line_that_is_too_long_its_end_is_told() -> None:
    output = StepOutput("build", [], 10)
    output.feed(b"before\n" + b"x" * 3000 + b"end", 0)
    output.finish()
    assert output.last_lines == "x" * (LAST_CHARACTERS - 3) + "end"
