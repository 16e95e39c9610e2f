"""From bytes to lines to messages: everything gets an answer, and nothing ends the server."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from bilt_mcp.server import lines as lines_module
from bilt_mcp.server.framing import MAX_DEPTH, NoMessage, parse
from bilt_mcp.server.lines import MAX_LINE_BYTES, Lines

PING = b'{"jsonrpc":"2.0","id":9,"method":"ping"}'


def lines_of(parts: Iterable[bytes]) -> list[bytes | None]:
    lines = Lines()
    found = [line for part in parts for line in lines.feed(part)]
    return [*found, *lines.finish()]


def refused(line: bytes | None) -> tuple[int, str, Any]:
    """The code, the text and the id of the answer to a line that is no message."""
    with pytest.raises(NoMessage) as caught:
        parse(line)
    answer = json.loads(caught.value.answer.model_dump_json(by_alias=True, exclude_unset=True))
    assert answer["jsonrpc"] == "2.0"
    return answer["error"]["code"], answer["error"]["message"], answer["id"]


def message(**fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 9, "method": "ping", **fields}).encode()


# -- lines -----------------------------------------------------------------------------------------


def test_lines_lose_their_ends_and_empty_ones_are_no_lines() -> None:
    assert lines_of([b"a\r\n\n  \r\n\tb \n\r\nc"]) == [b"a", b"b", b"c"]


def test_the_last_line_needs_no_end() -> None:
    assert lines_of([b"a\nb"]) == [b"a", b"b"]
    assert lines_of([b"a\n"]) == [b"a"]
    assert lines_of([]) == []


@given(data=st.binary(max_size=300).map(lambda b: b.replace(b"a", b"\n")), cuts=st.data())
def test_however_the_stream_is_cut_the_lines_are_the_same(data: bytes, cuts: st.DataObject) -> None:
    places = cuts.draw(st.lists(st.integers(0, len(data)), max_size=20).map(sorted))
    parts = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert lines_of(parts) == lines_of([data])
    assert lines_of(bytes([byte]) for byte in data) == lines_of([data])


@given(
    sizes=st.lists(st.sampled_from([1, 3, 7, 8, 9, 16, 40]), max_size=12),
    chunk=st.integers(1, 30),
    ended=st.booleans(),
)
def test_a_line_is_too_long_or_not_however_it_is_cut(
    sizes: list[int], chunk: int, ended: bool
) -> None:
    whole = b"\n".join(b"x" * size for size in sizes) + b"\n" * ended
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "MAX_LINE_BYTES", 8)
        found = lines_of(whole[n : n + chunk] for n in range(0, len(whole), chunk))
    assert found == [b"x" * size if size <= 8 else None for size in sizes]


def test_a_line_of_exactly_the_limit_passes_and_one_more_byte_does_not() -> None:
    assert lines_of([b"x" * MAX_LINE_BYTES + b"\n"]) == [b"x" * MAX_LINE_BYTES]
    assert lines_of([b"x" * (MAX_LINE_BYTES + 1) + b"\n"]) == [None]


def test_a_line_of_64_mib_takes_no_more_room_than_one_that_is_allowed() -> None:
    piece = b"x" * 65536
    lines = Lines()
    tracemalloc.start()
    try:
        found = [line for _ in range(1024) for line in lines.feed(piece)]
        found += lines.feed(b"\nafter\n")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [None, b"after"]
    assert peak < 3 * MAX_LINE_BYTES


def test_a_too_long_line_without_an_end_is_told_at_the_end() -> None:
    assert lines_of([b"x" * MAX_LINE_BYTES, b"y"]) == [None]


# -- messages --------------------------------------------------------------------------------------


def test_the_three_kinds_of_messages_are_read() -> None:
    request = parse(PING)
    assert isinstance(request, JSONRPCRequest)
    assert (request.id, request.method) == (9, "ping")
    assert isinstance(parse(b'{"jsonrpc":"2.0","method":"n/x"}'), JSONRPCNotification)
    assert isinstance(parse(b'{"jsonrpc":"2.0","id":"a","result":{}}'), JSONRPCResponse)
    error = b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m"}}'
    assert isinstance(parse(error), JSONRPCError)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"hello", "Expecting value"),
        (PING[:-1], "delimiter"),
        (PING + b"}", "Extra data"),
        (PING + PING, "Extra data"),
        (b"\xff\xfe", "can't decode byte 0xff"),
        (b'{"a":"\xed\xa0\x80"}', "can't decode byte 0xed"),
        (b"\xef\xbb\xbf" + PING, "BOM"),
        (b'{"a":NaN}', "NaN is no JSON"),
        (b'{"a":-Infinity}', "-Infinity is no JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"a":"\x01"}', "Invalid control character"),
        (b'{"a":"\\x"}', "Invalid \\escape"),
    ],
)
def test_what_is_no_json_is_a_parse_error_that_says_why(line: bytes, told: str) -> None:
    code, text, request_id = refused(line)
    assert (code, request_id) == (PARSE_ERROR, None)
    assert text.startswith("This line is not JSON: ")
    assert told in text
    assert len(text) < 300


@pytest.mark.parametrize("line", [b"[]", b"[" + PING + b"]", b"[1,2]"])
def test_a_batch_is_refused_by_name(line: bytes) -> None:
    told = "Batches are not supported: send one JSON-RPC message a line"
    assert refused(line) == (INVALID_REQUEST, told, None)


@pytest.mark.parametrize("line", [b"1", b'"ping"', b"null", b"true"])
def test_json_that_is_no_object_is_refused(line: bytes) -> None:
    told = "Not an object: send one JSON-RPC message a line"
    assert refused(line) == (INVALID_REQUEST, told, None)


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":9}',
        b'{"id":9,"method":"ping"}',
        message(jsonrpc="1.0"),
        message(method=5),
        message(method=None),
        message(params=[1]),
        message(params="x"),
    ],
)
def test_an_object_that_is_no_message_is_answered_under_its_id(line: bytes) -> None:
    assert refused(line) == (INVALID_REQUEST, "This line is no JSON-RPC 2.0 message", 9)


@pytest.mark.parametrize("request_id", [None, 1.5, 1e300, True, {}, [], "\ud800", "a\udfff"])
def test_a_request_with_an_unusable_id_is_refused_and_not_taken_for_a_notification(
    request_id: Any,
) -> None:
    told = "An id must be an integer or valid Unicode text"
    assert refused(message(id=request_id)) == (INVALID_REQUEST, told, None)


@pytest.mark.parametrize("request_id", [0, -1, 2**64, 2**2000, "", "a", "\U0001f600"])
def test_an_id_of_any_size_comes_back_as_it_was(request_id: Any) -> None:
    read = parse(message(id=request_id))
    assert isinstance(read, JSONRPCRequest)
    assert read.id == request_id
    assert refused(message(id=request_id, method=5))[2] == request_id


def test_a_line_that_was_too_long_says_the_limit() -> None:
    told = f"A line may have at most {MAX_LINE_BYTES} bytes"
    assert refused(None) == (INVALID_REQUEST, told, None)


# -- depth -----------------------------------------------------------------------------------------


def nested(depth: int, inside: str = "1") -> bytes:
    """A request that is nested `depth` deep."""
    arrays = depth - 2
    return (
        b'{"jsonrpc":"2.0","id":9,"method":"m","params":{"a":'
        + b"[" * arrays
        + inside.encode()
        + b"]" * arrays
        + b"}}"
    )


def test_nesting_to_the_limit_passes_and_one_deeper_does_not() -> None:
    assert isinstance(parse(nested(MAX_DEPTH)), JSONRPCRequest)
    told = f"JSON may be nested at most {MAX_DEPTH} deep"
    assert refused(nested(MAX_DEPTH + 1)) == (PARSE_ERROR, told, None)
    assert refused(nested(100_000)) == (PARSE_ERROR, told, None)
    assert refused(b'{"a":' * 100_000) == (PARSE_ERROR, told, None)


def test_brackets_in_strings_and_side_by_side_are_no_nesting() -> None:
    deep_text = json.dumps('\\"[[{' * 500)
    assert isinstance(parse(nested(MAX_DEPTH, deep_text)), JSONRPCRequest)
    assert isinstance(parse(nested(3, "{}" + ",[[]]" * 500)), JSONRPCRequest)


@pytest.mark.parametrize("end", [b"", b"\\", b"\\\\"])
def test_a_string_without_an_end_costs_no_more_time_than_one_with(end: bytes) -> None:
    line = b"[" * 60 + b"{}" * 10 + b'"' + b'\\"' * 500_000 + end
    assert refused(line)[0] == PARSE_ERROR  # were it quadratic, after hours


# -- lone surrogates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "escape",
    [r"\ud800", r"\uD800", r"\udbff", r"\udc00", r"\udfff", r"\uDFFF", r"\uDe00", r"\ude00\ud83d"],
)
@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc":"2.0","id":9,"method":"%s"}',
        '{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"%s","arguments":{}}}',
        '{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"x","_meta":{"%s":1}}}',
        '{"jsonrpc":"2.0","id":9,"method":"m","params":{"arguments":"%s"}}',
    ],
)
def test_a_lone_surrogate_outside_of_arguments_is_refused_here(line: str, escape: str) -> None:
    told = "This message has a lone surrogate in it"
    assert refused((line % escape).encode()) == (INVALID_REQUEST, told, 9)


def test_a_lone_surrogate_in_a_tools_arguments_is_left_to_the_tool() -> None:
    params = {"name": "x", "arguments": {"message": "\udfff"}}
    read = parse(message(method="tools/call", params=params))
    assert isinstance(read, JSONRPCRequest)
    assert read.params == params


def test_a_pair_of_surrogates_is_a_character() -> None:
    read = parse(rb'{"jsonrpc":"2.0","id":9,"method":"\ud83d\ude00"}')
    assert isinstance(read, JSONRPCRequest)
    assert read.method == "\U0001f600"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(("jsonrpc", "id", "method"), JSON)),
)
def test_any_json_is_a_message_or_an_answer_that_can_be_sent(value: Any) -> None:
    _read_or_refused(json.dumps(value).encode())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_answer_that_can_be_sent(line: bytes) -> None:
    _read_or_refused(line)


def _read_or_refused(line: bytes) -> None:
    with contextlib.suppress(NoMessage):
        parse(line)
        return
    refused(line)


def test_a_message_of_100_000_values_passes_and_one_more_does_not() -> None:
    def line(commas: int) -> bytes:
        numbers = b",".join([b"1"] * (commas - 1))
        return b'{"jsonrpc":"2.0","method":"a","params":{"b":[%s]}}' % numbers

    assert parse(line(100_000))
    with pytest.raises(NoMessage, match="at most 100000 values"):
        parse(line(100_001))
