"""An MCP client of the standard library only: lines of JSON to a real server process, and back.

It shares no code with the server or the SDK, so it sees what any client would see.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Literal, Self

HANDSHAKE = "2025-11-25"
STATELESS = "2026-07-28"
PATIENCE = 30.0
"""Seconds until a missing answer is a failure; a start-up on a busy machine takes five."""

CLIENT = {"name": "by-hand", "version": "1"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
"""What every request carries in `_meta` in the era without a handshake."""

Json = dict[str, Any]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bilt_mcp.server", *arguments]


def request(request_id: int, method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """A request as a line."""
    message: Json = {"jsonrpc": "2.0", "id": request_id, "method": method}
    if params is not None:
        message["params"] = dict(params)
    return json.dumps(message).encode() + b"\n"


def handshake() -> bytes:
    """The lines with which a client of the handshake era begins; the id is 0."""
    hello = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": CLIENT}
    return request(0, "initialize", hello) + (
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
    )


class Server:
    """A server process. Use it as a context manager."""

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        wire: Literal["pipes", "sockets"] = "pipes",
        era: str | None = HANDSHAKE,
        within: Sequence[str] = (),
    ) -> None:
        """`within` is put before the command, and becomes it by exec."""
        self.lines: list[bytes] = []
        """Everything that came on stdout."""
        self.stderr = b""
        self._era = era
        self._within = within
        self._ids = itertools.count(1)
        self._found: queue.Queue[Json | None] = queue.Queue()
        self._early: dict[Any, Json] = {}
        self._to: IO[bytes]
        self._from: IO[bytes]
        if wire == "pipes":
            self.process = self._spawn(arguments, environ, subprocess.PIPE, subprocess.PIPE)
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self._to, self._from = self.process.stdin, self.process.stdout
        else:
            self._start_on_sockets(arguments, environ)
        assert self.process.stderr is not None
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, args=(self.process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _start_on_sockets(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        # As node does: one pair for each direction.
        (mine_in, theirs_in), (mine_out, theirs_out) = socket.socketpair(), socket.socketpair()
        with theirs_in, theirs_out, mine_in, mine_out:
            ends = theirs_in.fileno(), theirs_out.fileno()
            self.process = self._spawn(arguments, environ, *ends)
            self._to, self._from = mine_in.makefile("wb"), mine_out.makefile("rb")

    def _spawn(
        self, arguments: Sequence[str], environ: Mapping[str, str], stdin: int, stdout: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._within, *command(*arguments)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=dict(environ),
        )

    def __enter__(self) -> Self:
        if self._era == HANDSHAKE:
            self.write(handshake())
            self.hello = self.answer(0)["result"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.end_input()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join()
        self._from.close()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        for line in self._from:
            self.lines.append(line)
            with contextlib.suppress(ValueError):
                self._found.put(json.loads(line))
        self._found.put(None)

    def _read_errors(self, errors: IO[bytes]) -> None:
        while part := os.read(errors.fileno(), 65536):
            self.stderr += part

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self._to.write(data)
        self._to.flush()

    def end_input(self) -> None:
        """Close our end, as a client does that goes."""
        self._to.close()

    def next(self, patience: float = PATIENCE) -> Json:
        """The next message from the server, whatever it is."""
        try:
            found = self._found.get(timeout=patience)
        except queue.Empty:
            raise AssertionError(f"nothing came within {patience} s; {self.stderr!r}") from None
        if found is None:
            self._found.put(None)
            raise EOFError(f"the server has ended: {self.stderr.decode(errors='replace')}")
        return found

    def answer(self, request_id: Any) -> Json:
        """The answer to a request; others that come before it are kept."""
        while request_id not in self._early:
            message = self.next()
            if "id" in message and "method" not in message:
                self._early[message["id"]] = message
        return self._early.pop(request_id)

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> int:
        """Send a request; returns its id."""
        request_id = next(self._ids)
        given = dict(params or {})
        if self._era == STATELESS:
            given["_meta"] = {**ENVELOPE, **given.get("_meta", {})}
        self.write(request(request_id, method, given))
        return request_id

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> Json:
        """A request's whole answer."""
        return self.answer(self.send(method, params))

    def start_call(self, tool: str, **arguments: Any) -> int:
        """Send a tool call; returns the id to ask `answer` for."""
        return self.send("tools/call", {"name": tool, "arguments": arguments})

    def call(self, tool: str, **arguments: Any) -> Json:
        """A tool's structured answer, success or failure."""
        return structured(self.answer(self.start_call(tool, **arguments)))

    def exit_code(self, patience: float = PATIENCE) -> int:
        """How it ended, when it has."""
        return self.process.wait(patience)


def structured(answer: Json) -> Json:
    """The structured content of a tool's answer, which its text must equal."""
    result = answer["result"]
    content: Json = result["structuredContent"]
    assert json.loads(result["content"][0]["text"]) == content
    assert bool(result.get("isError")) == ("error" in content)
    return content
