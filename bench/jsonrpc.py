"""MCP over the standard streams of a child, in the standard library only: what is measured is the server."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .kernel import now

PASSED_ON = ("HOME", "LOGNAME", "PATH", "PYTHONPATH", "SHELL", "TERM", "TMPDIR", "USER")
"""What MCP clients give their servers, and what a checkout that is not installed needs."""


class ToolFailed(Exception):
    """A tool answered with an error; the text is its JSON."""


class StdioClient:
    """A server process and the connection to it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> None:
        given = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._log = log
        self._timeout = timeout
        self._last_id = 0
        self._held = bytearray()
        self._early: dict[int, dict[str, Any]] = {}
        self.began = now()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                env={**given, **(env or {})},
                bufsize=0,
                process_group=0,  # Ctrl-C in a terminal is for us
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._stdout.fileno(), select.POLLIN)
        try:
            client = {"name": "bench", "version": "1"}
            self.request(
                "initialize",
                {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client},
            )
            self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The server's number."""
        return self._process.pid

    def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The result of one request; whatever else the server says meanwhile is passed over."""
        return self._answer(self._ask(method, params))

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured content of a tool's answer. Raises `ToolFailed`."""
        return self.answer(self.begin_call(tool, **arguments), tool)

    def begin_call(self, tool: str, **arguments: Any) -> int:
        """Call a tool without waiting for its answer; returns what to ask `answer` for."""
        return self._ask("tools/call", {"name": tool, "arguments": arguments})

    def answer(self, request_id: int, tool: str = "a tool") -> dict[str, Any]:
        """The structured content of the answer to a call that was begun. Raises `ToolFailed`."""
        result = self._answer(request_id)
        if result.get("isError"):
            raise ToolFailed(f"{tool}: {result['content'][0]['text']}")
        content: dict[str, Any] = result["structuredContent"]
        return content

    def _ask(self, method: str, params: Mapping[str, Any] | None) -> int:
        self._last_id += 1
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": self._last_id, "method": method}
        if params is not None:
            message["params"] = params
        self._send(message)
        return self._last_id

    def _answer(self, request_id: int) -> dict[str, Any]:
        while request_id not in self._early:
            found = json.loads(self._line())
            if "method" not in found and "id" in found:
                self._early[found["id"]] = found
        answer = self._early.pop(request_id)
        if "error" in answer:
            raise ToolFailed(json.dumps(answer["error"]))
        result: dict[str, Any] = answer["result"]
        return result

    def _send(self, message: Mapping[str, Any]) -> None:
        self._stdin.write(json.dumps(message).encode() + b"\n")

    def _line(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        while (end := self._held.find(b"\n")) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise TimeoutError(f"no answer within {self._timeout:.0f} s; {self._complaint()}")
            piece = os.read(self._stdout.fileno(), 1 << 16)
            if not piece:
                raise EOFError(f"the server has gone; {self._complaint()}")
            self._held += piece
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line

    def _complaint(self) -> str:
        return f"its log ends: {self._log.read_text('utf-8', 'replace')[-2000:]}"

    def close(self) -> None:
        """Close the server's input, as clients do, and wait for its end."""
        self._stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
