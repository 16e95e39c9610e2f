"""HTTP/1.1 by hand, over one connection that stays open: what is measured is the server and not a client's library."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from .kernel import now


class HttpFailed(Exception):
    """An answer other than was expected; the text is its status and body."""


class HttpWire:
    """One connection to a server."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, timeout: float = 60):
        """`headers` go with every request."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timeout = timeout
        self._held = bytearray()
        given = {"Host": f"{parts.hostname}:{parts.port}", **(headers or {})}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in given.items())

    def get(self, path: str) -> bytes:
        """The body of the answer. Raises `HttpFailed`."""
        return self.ask(self.request("GET", path))

    def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of the answer to this JSON. Raises `HttpFailed`."""
        return self.ask(self.request("POST", path, body, headers))

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """A request as it goes over the wire: made before the clock runs."""
        sent = b"" if body is None else json.dumps(body).encode()
        more = {} if body is None else {"Content-Type": "application/json"}
        if method == "POST":
            more["Content-Length"] = str(len(sent))
        more |= headers or {}
        head = self._headers + "".join(f"{name}: {value}\r\n" for name, value in more.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + sent

    def ask(self, request: bytes) -> bytes:
        """Send it; the whole body of the answer. Raises `HttpFailed` unless its status is 2xx."""
        self._socket.sendall(request)
        status, headers = self._head()
        body = self._body(headers)
        if not 200 <= status < 300:
            raise HttpFailed(f"{status} {body.decode('utf-8', 'replace')[:500]}")
        return body

    def cookie(self, path: str, body: Mapping[str, Any]) -> str:
        """The cookie that the answer sets."""
        self._socket.sendall(self.request("POST", path, body))
        status, headers = self._head()
        told = self._body(headers)
        if "set-cookie" not in headers:
            raise HttpFailed(f"{status} {told.decode('utf-8', 'replace')[:500]}")
        return headers["set-cookie"].partition(";")[0]

    def open_stream(self, path: str) -> None:
        """Ask for a stream, and return when it has begun. Afterwards the connection is good for `until` only."""
        self._socket.sendall(self.request("GET", path))
        status, headers = self._head()
        if status != 200:
            raise HttpFailed(f"{status} {self._body(headers).decode('utf-8', 'replace')[:500]}")

    def until(self, wanted: re.Pattern[bytes]) -> tuple[re.Match[bytes], int]:
        """What the stream says of `wanted`, and when it came; the stream is good behind it."""
        deadline = time.monotonic() + self._timeout
        while True:
            came = now()
            if found := wanted.search(bytes(self._held)):
                del self._held[: found.end()]
                return found, came
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {wanted.pattern!r} within {self._timeout:.0f} s")
            self._more()

    def _head(self) -> tuple[int, dict[str, str]]:
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            self._more()
        first, *lines = self._held[:end].decode("latin-1").split("\r\n")
        del self._held[: end + 4]
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return int(first.split()[1]), headers

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return self._exactly(int(headers.get("content-length", "0")))
        parts: list[bytes] = []
        while True:
            while (end := self._held.find(b"\r\n")) < 0:
                self._more()
            size = int(self._held[:end].partition(b";")[0], 16)
            del self._held[: end + 2]
            parts.append(self._exactly(size + 2)[:-2])
            if not size:
                return b"".join(parts)

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            self._more()
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    def _more(self) -> None:
        piece = self._socket.recv(1 << 16)
        if not piece:
            raise EOFError("the server has closed the connection")
        self._held += piece

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
