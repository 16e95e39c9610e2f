"""Bad inputs for a server on lines of JSON-RPC: drawn without end, each with the answers that it must get."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .due_answers import MAX_LINE, Due, Json, due, has_surrogate


@dataclass(frozen=True)
class Bad:
    """Some lines, and the answers that they must get."""

    what: str
    data: bytes
    due: Sequence[Due]


_BIDI = "\u202e\u2066\u200b\u200d\ufeff\u2028\u0085\U000e0041"
_ODD_TEXT = (
    *("", " ", "\0", "a\0b", "\ud800", "\udfff\ud800x", "\uffff", "\ufdd0", "\U0010ffff", _BIDI),
    *("\x1b[2J\x1b]0;t\x07", "true", "1", "NaN", "null", "None", "x" * 5001, "\u00e9" * 6000),
    *("--help", "-x", "--store=/tmp", "@/etc/passwd", "../../etc/passwd", "/etc/passwd\0.txt"),
    *("..", "~", "file:///etc/passwd", "C:\\Windows", "%2e%2e%2f", "' OR 1=1 --", "%s%n", "{0}"),
)
_NUMBERS = (
    *("0", "-1", "1", "2147483648", "9007199254740993", "-9223372036854775809", "1e400", "-1e400"),
    *("1.5", "-0.0", "1e308", "5e-324", "NaN", "Infinity", "-Infinity", "9" * 400, "9" * 5000),
)
_METHODS = (
    *("ping", "initialize", "tools/list", "tools/call", "resources/list", "resources/read"),
    *("resources/templates/list", "prompts/get", "completion/complete", "logging/setLevel"),
    *("server/discover", "tasks/list", "sampling/createMessage", "notifications/cancelled"),
    *("", "\0", "../x", "__class__", "PING", "tools/call ", "x" * 2000),
)


class Corpus:
    """Draws bad inputs for a server with these tools (as `tools/list` gives them)."""

    def __init__(
        self, draw: random.Random, tools: Sequence[Json], live_session: str, canary: str
    ) -> None:
        self._draw = draw
        self._tools = tools
        self._live = live_session
        self._ids = itertools.count(1_000_000)
        self._shell = [
            *(f"; touch {canary}", f"$(touch {canary})", f"`touch {canary}`", f"| touch {canary}"),
            *(f"\n touch {canary}\n", f"' && touch {canary} #", f'" ; touch {canary} ; "'),
            *(f"${{IFS}}touch${{IFS}}{canary}", f">{canary}", f"& touch {canary} &"),
        ]
        self._streams: tuple[Callable[[], bytes], ...] = (
            *(self._mutant, self._mutant, self._mutant, self._odd_object, self._odd_object),
            *(self._odd_method, self._odd_method, self._notification, self._response, self._deep),
            *(self._no_object, self._small_lines, self._bytes, self._ends, self._twice),
        )

    def bad(self) -> Bad:
        """The next one."""
        if self._draw.random() < 0.6:
            return self._call()
        make = self._draw.choice(self._streams)
        data = make() + b"\n"
        lines = data.split(b"\n")[:-1]
        return Bad(make.__name__[1:], data, [d for line in lines if (d := due(line)) is not None])

    def huge(self, size: int) -> Bad:
        """One line of so many bytes."""
        filling = self._draw.choice((b"x", b"[", b'"', b"{}", b"\x00", b"\xff", b'{"a":'))
        data = (filling * (size // len(filling) + 1))[:size]
        return Bad(f"a line of {size} bytes", data + b"\n", [d for d in [due(data)] if d])

    def full(self) -> Bad:
        """A call that fills a whole line: a value, a name, a method or very many small things."""
        room = MAX_LINE - 400
        text, many = '"' + "x" * room + '"', "[" + "[]," * (room // 3) + "0]"
        tool = self._draw.choice(self._tools)["name"]
        arguments = self._draw.choice(
            (
                *(f'{{"session_id":{text}}}', f'{{"session_id":{many}}}', f"{{{text}:1}}"),
                "{" + ",".join(f'"{n}":1' for n in range(room // 11)) + "}",
            )
        )
        data, request_id = self._raw_call(json.dumps(tool), arguments)
        return Bad("a full line", data + b"\n", [Due(request_id, "refused", or_null=True)])

    # -- calls of tools ----------------------------------------------------------------------------

    def _call(self) -> Bad:
        tool = self._draw.choice(self._tools)
        schema = tool["inputSchema"]
        read_only = tool["annotations"]["readOnlyHint"]
        known = sorted(schema["properties"])
        victim = self._draw.choice(known or ["session_id"])
        value = self._value()
        # What may be accepted must meet a session that nobody has, so that nothing is ever changed.
        how = self._draw.random()
        hopeless = schema["properties"].get(victim, {}).get("type") == "string" and not _acceptable(
            value
        )
        alive = victim != "wait_seconds" and (read_only or (hopeless and 0.1 < how < 0.9))
        given = {name: self._fine(name) for name in {*schema.get("required", ()), "session_id"}}
        if alive and self._draw.random() < 0.5:
            given["session_id"] = json.dumps(self._live)
        if "session_id" not in known:
            given = {**given, "no_such_argument": "1"} if not read_only else {}
            given.pop("session_id", None)
        given[victim] = value
        if how < 0.1:
            given.pop(self._draw.choice(sorted(given.keys() - {"no_such_argument"})))
        elif how < 0.2:
            given[self._odd_text()] = self._value()
        pairs = [f"{json.dumps(name)}:{text}" for name, text in given.items()]
        if how > 0.9:
            pairs.append(f"{json.dumps(victim)}:{self._value()}")  # the same name twice
        self._draw.shuffle(pairs)
        arguments = "{" + ",".join(pairs) + "}"
        if how > 0.97:
            arguments = self._draw.choice(("[]", '"x"', "5", "true", json.dumps(arguments)))
        name = json.dumps(tool["name"])
        if self._draw.random() < 0.05:
            name = self._draw.choice((json.dumps(self._odd_text()), "5", "[]", "{}", "true"))
        data, _ = self._raw_call(name, arguments)
        unknown = [n for n, text in given.items() if n not in known and text != "null"]
        found = due(data, "any" if read_only and not unknown else "refused")
        assert found is not None
        return Bad(f"{tool['name']}.{victim}={value[:60]}", data + b"\n", [found])

    def _raw_call(self, name: str, arguments: str) -> tuple[bytes, Any]:
        request_id = next(self._ids)
        text = f'{{"name":{name},"arguments":{arguments}}}'
        return self._request(json.dumps(request_id), '"tools/call"', text), request_id

    @staticmethod
    def _request(request_id: str, method: str, params: str) -> bytes:
        return f'{{"jsonrpc":"2.0","id":{request_id},"method":{method},"params":{params}}}'.encode()

    def _fine(self, name: str) -> str:
        return json.dumps(self._unknown() if name.endswith("_id") else "build")

    def _unknown(self) -> str:
        return str(UUID(int=self._draw.getrandbits(128), version=4))

    def _odd_text(self) -> str:
        unknown = self._unknown()
        return self._draw.choice(
            (
                *_ODD_TEXT,
                *self._shell,
                *(unknown.upper(), f"{{{unknown}}}", unknown + "\n", unknown.replace("-", "")),
                *("urn:uuid:" + unknown, unknown[:-1], unknown + "0", "\uff10" + unknown[1:]),
                "".join(chr(self._draw.randrange(1, 0x11000)) for _ in range(20)),
            )
        )

    def _value(self) -> str:
        """A value that is hardly right, as JSON or nearly."""
        draw = self._draw
        kind = draw.random()
        if kind < 0.55:
            return (
                json.dumps(self._odd_text(), ensure_ascii=draw.random() < 0.9)
                .encode("utf-8", "backslashreplace")
                .decode()
            )
        if kind < 0.75:
            return draw.choice(_NUMBERS)
        if kind < 0.85:
            return draw.choice(("null", "true", "false", "{}", "[]", '{"a":{"b":[1]}}', "[null]"))
        if kind < 0.9:
            depth = draw.choice((30, 58, 59, 60, 61, 62, 63, 64, 65, 500))
            return "[" * depth + "]" * depth
        if kind < 0.95:
            return json.dumps([self._live, {"session_id": self._live}])
        return json.dumps("x" * draw.choice((130_000, 300_000)))

    # -- the raw stream ----------------------------------------------------------------------------

    def _plain(self) -> bytes:
        arguments = json.dumps({"session_id": self._unknown()})
        return self._raw_call('"bilt_get_session"', arguments)[0]

    def _mutant(self) -> bytes:
        """A call with some bytes changed, put in, left out or cut off."""
        data = bytearray(self._plain())
        for _ in range(self._draw.randrange(1, 4)):
            at = self._draw.randrange(len(data))
            how = self._draw.randrange(4)
            if how == 0:
                data[at] = self._draw.randrange(256)
            elif how == 1:
                data.insert(at, self._draw.choice(b'"\\{}[],:0\n\r\x00\xff\xc3 eE-'))
            elif how == 2:
                del data[at : at + self._draw.randrange(1, 9)]
            else:
                del data[at:]
            if not data:
                return b"{"
        return bytes(data)

    def _odd_object(self) -> bytes:
        """A request whose parts are of all kinds, or missing."""
        parts = {
            "jsonrpc": self._draw.choice(('"2.0"', '"2.0"', '"1.0"', "2.0", "null", self._value())),
            "id": self._draw.choice(
                (
                    *(str(next(self._ids)), f'"s-{next(self._ids)}"', str(-next(self._ids))),
                    *("null", "1.5", "true", "[]", "{}", '"\\ud800"', '""', "9" * 300, "9" * 5000),
                    json.dumps("i" * 5000 + str(next(self._ids))),
                )
            ),
            "method": self._draw.choice(('"ping"', '"tools/list"', "1", "null", self._value())),
            "params": self._draw.choice(
                ("{}", "null", "[1]", '"x"', "5", f'{{"a":{self._value()}}}')
            ),
        }
        for name in list(parts):
            if self._draw.random() < 0.1:
                del parts[name]
        return ("{" + ",".join(f'"{k}":{v}' for k, v in parts.items()) + "}").encode()

    def _odd_method(self) -> bytes:
        method = json.dumps(self._draw.choice(_METHODS))
        cursor = (
            f'{{"{self._draw.choice(("cursor", "uri", "name", "level", "ref"))}":{self._value()}}}'
        )
        meta = f'{{"_meta":{{"progressToken":{self._value()}}}}}'
        era = f'{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{self._value()}}}}}'
        params = self._draw.choice(("{}", cursor, meta, era, '{"_meta":5}', '{"arguments":[]}'))
        return self._request(str(next(self._ids)), method, params)

    def _notification(self) -> bytes:
        name = self._draw.choice(
            ("cancelled", "progress", "initialized", "roots/list_changed", "x")
        )
        key = self._draw.choice(("requestId", "progressToken", "reason"))
        params = self._draw.choice(
            (f'{{"{key}":{self._value()}}}', '{"requestId":424242}', "[]", "null", "7", "{}")
        )
        return f'{{"jsonrpc":"2.0","method":"notifications/{name}","params":{params}}}'.encode()

    def _response(self) -> bytes:
        number = self._draw.choice((str(next(self._ids)), '"x"', "null", "1.5", "[]"))
        body = self._draw.choice(
            (
                *('"result":{}', '"error":{"code":1,"message":"m"}', '"result":5', '"error":5'),
                *(f'"result":{{"a":{self._value()}}}', '"error":{}', '"result":{},"error":{}'),
            )
        )
        return f'{{"jsonrpc":"2.0","id":{number},{body}}}'.encode()

    def _deep(self) -> bytes:
        depth = self._draw.choice((63, 64, 65, 1000, 100_000))
        opening, closing = self._draw.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")))
        ends = closing * depth if self._draw.random() < 0.5 else ""
        return self._request(str(next(self._ids)), '"ping"', f'{{"a":{opening * depth}1{ends}}}')

    def _no_object(self) -> bytes:
        ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        return self._draw.choice(
            (b"[]", b"[" + ping + b"," + ping + b"]", b"null", b"5", b'"ping"', b"true", b"[[[]]]")
        )

    def _small_lines(self) -> bytes:
        return b"\n".join(
            self._draw.choice((b"x", b"", b"{}", b"\r", b" ", b"[", b"\x00"))
            for _ in range(self._draw.randrange(50, 400))
        )

    def _bytes(self) -> bytes:
        return self._draw.choice(
            (
                *(self._draw.randbytes(self._draw.randrange(1, 300)), b"\xff\xfe" + self._plain()),
                *(b"\xef\xbb\xbf" + self._plain(), self._plain().decode().encode("utf-16-le")),
                *(
                    b"\x00" * 50,
                    self._plain() + b"\x00",
                    self._plain().replace(b"bilt", b"\xc3\x28"),
                ),
                *(b"Content-Length: 5\r\n\r\n{}", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            )
        )

    def _ends(self) -> bytes:
        return b"\r\n" + self._plain() + b"\r\n\n \t\r\n" + self._plain() + b"  \r"

    def _twice(self) -> bytes:
        """Two requests with one id: each of them is a request."""
        request = self._plain()
        return request + b"\n" + request


def _acceptable(value: str) -> bool:
    """Whether a value could be right for some argument."""
    try:
        found = json.loads(value)
    except ValueError:
        return False
    if not isinstance(found, str):
        return found is None
    return 0 < len(found) <= 5000 and "\0" not in found and not has_surrogate(found)
