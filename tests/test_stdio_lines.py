"""Lines that are no messages, or hardly any, at the real program: each is answered, and so is the next."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from .support.agents import UNKNOWN
from .support.places import Place, open_place
from .support.places import place as place  # a fixture
from .support.places import resident as resident  # a fixture
from .support.rpc import Json, Server, request, structured


@pytest.fixture(scope="module")
def shared_place(resident: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with open_place(tmp_path_factory.mktemp("shared"), BILT_RESIDENT=resident) as found:
        yield found


@pytest.fixture(scope="module")
def shared(shared_place: Place) -> Generator[Server]:
    """One server for all the tests that leave it as they found it."""
    with Server(shared_place.arguments, shared_place.environ) as server:
        yield server


def tool_call(name: str, arguments: str = "{}", request_id: str = "9") -> bytes:
    """A tool call, as text that no JSON writer would write."""
    params = f'{{"name":"{name}","arguments":{arguments}}}'
    text = f'{{"jsonrpc":"2.0","id":{request_id},"method":"tools/call","params":{params}}}'
    return text.encode()


BAD_LINES: dict[str, tuple[bytes, int, Any]] = {
    "no JSON": (b"hello", -32700, None),
    "half a message": (b'{"jsonrpc":"2.0","id":9,', -32700, None),
    "no UTF-8": (b'{"jsonrpc":"2.0","id":9,"method":"\xff"}', -32700, None),
    "a byte order mark": (b"\xef\xbb\xbf" + request(9, "ping").strip(), -32700, None),
    "NaN": (tool_call("bilt_get_session", '{"wait_seconds":NaN}'), -32700, None),
    "an integer of 10000 digits": (tool_call("x", "{}", "9" * 10_000), -32700, None),
    "100000 levels": (tool_call("x", "[" * 100_000 + "]" * 100_000), -32700, None),
    "5 MiB": (tool_call("x", f'{{"a":"{"x" * 5 * 2**20}"}}'), -32600, None),
    "a batch": (b"[" + request(9, "ping").strip() + b"]", -32600, None),
    "an empty batch": (b"[]", -32600, None),
    "a string": (b'"ping"', -32600, None),
    "null": (b"null", -32600, None),
    "an empty object": (b"{}", -32600, None),
    "another version": (b'{"jsonrpc":"1.0","id":9,"method":"ping"}', -32600, 9),
    "a method that is a number": (b'{"jsonrpc":"2.0","id":9,"method":1}', -32600, 9),
    "parameters in a list": (b'{"jsonrpc":"2.0","id":9,"method":"ping","params":[1]}', -32600, 9),
    "an id with a fraction": (tool_call("x", "{}", "1.5"), -32600, None),
    "an id that is true": (tool_call("x", "{}", "true"), -32600, None),
    "an id that is null": (tool_call("x", "{}", "null"), -32600, None),
    "an id that is an object": (tool_call("x", "{}", "{}"), -32600, None),
    "a surrogate in the id": (tool_call("x", "{}", r'"\udfff"'), -32600, None),
    "a surrogate in the tool's name": (tool_call(r"\udfff"), -32600, 9),
    "a high one in the tool's name": (tool_call(r"\uD800"), -32600, 9),
    "a surrogate in the method": (rb'{"jsonrpc":"2.0","id":9,"method":"\udfff"}', -32600, 9),
    "an unknown method": (request(9, "no/such"), -32601, 9),
    "a call of nothing": (request(9, "tools/call", {}), -32602, 9),
    "arguments in a list": (tool_call("bilt_get_session", "[]"), -32602, 9),
}


@pytest.mark.parametrize("what", BAD_LINES)
def test_a_bad_line_gets_an_error_and_the_next_one_its_answer(shared: Server, what: str) -> None:
    line, code, request_id = BAD_LINES[what]
    shared.write(line.rstrip(b"\n") + b"\n")
    answer = shared.next()
    assert (answer["error"]["code"], answer["id"]) == (code, request_id)
    assert 0 < len(answer["error"]["message"]) < 500
    assert shared.ask("ping")["result"] == {}


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("bilt_send_message", rf'{{"session_id":"{UNKNOWN}","message":"\udfff"}}', "surrogate"),
        ("bilt_send_message", rf'{{"session_id":"{UNKNOWN}","message":"a\ud800b"}}', "surrogate"),
        ("bilt_get_session", r'{"session_id":"\ud800"}', "session_id"),
        ("bilt_get_session", r'{"\udc00":1}', "no such argument"),
        ("bilt_get_messages", rf'{{"session_id":"{UNKNOWN}","query":"\udfff"}}', "surrogate"),
        ("bilt_get_messages", rf'{{"session_id":"{UNKNOWN}","variant":"\udfff"}}', "variant"),
        ("bilt_cancel_workflow", rf'{{"session_id":"{UNKNOWN}","reason":"\ud800"}}', "surrogate"),
        ("bilt_send_message", rf'{{"session_id":"{UNKNOWN}","message":"\u0000"}}', "NUL"),
        ("bilt_get_session", '{"after_revision":' + "9" * 4000 + "}", ""),
        ("no_such_tool", "{}", "no such tool"),
    ],
)
def test_a_bad_argument_gets_the_documented_error(
    shared: Server, tool: str, arguments: str, told: str
) -> None:
    shared.write(tool_call(tool, arguments) + b"\n")
    found = structured(shared.answer(9))
    if told:
        assert found["error"] == "Invalid arguments"
        assert told in found["details"]["message"]
    assert shared.ask("ping")["result"] == {}


def test_lines_may_come_in_any_pieces_and_with_any_ends(shared: Server) -> None:
    line = request(500, "ping").strip()
    for byte in line:
        shared.write(bytes([byte]))
    shared.write(b"\r\n\r\n  \n" + request(501, "ping") + request(502, "ping").strip())
    shared.write(b"\n")
    assert [shared.answer(number)["result"] for number in (500, 501, 502)] == [{}, {}, {}]


def test_an_answer_larger_than_a_pipe_arrives_whole(shared: Server) -> None:
    names = {f"{n}": "x" * 60_000 for n in range(20)}
    request_ids = [shared.start_call("bilt_get_session", **names) for _ in range(40)]
    for request_id in request_ids:
        assert structured(shared.answer(request_id))["error"] == "Invalid arguments"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/get", {"name": "x" * 5000}),
        ("resources/read", {"uri": "bilt://" + "x" * 5000}),
        ("x" * 5000, {}),
    ],
)
def test_an_error_does_not_repeat_all_that_was_asked(
    place: Place, method: str, params: Json
) -> None:
    with Server(place.arguments, place.environ) as server:
        answer = server.ask(method, params)
        assert answer["error"]["code"] < 0
        assert len(json.dumps(answer)) < 1000
        assert server.ask("ping")["result"] == {}
    assert b"Traceback" not in server.stderr
