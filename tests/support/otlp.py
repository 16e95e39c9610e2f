"""An OpenTelemetry collector of the test's own: what was sent to it, decoded by OpenTelemetry's own message types."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .rpc import PATIENCE


@dataclass(frozen=True)
class Sent:
    """A span as it was sent."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start: int
    end: int
    is_error: bool
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


class Collector(ThreadingHTTPServer):
    """Takes spans at `endpoint`. With `hangs` it takes the requests and never answers them."""

    daemon_threads = True

    def __init__(self, *, hangs: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hangs = hangs
        self.asked = 0
        self.raw = b""
        self._spans: list[Sent] = []
        self._came = threading.Condition()
        self.over = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> list[Sent]:
        with self._came:
            return list(self._spans)

    def take(self, body: bytes, headers: Mapping[str, str]) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        with self._came:
            self.raw += body
            for of_resource in request.resource_spans:
                resource = _values(of_resource.resource.attributes)
                for scope in of_resource.scope_spans:
                    self._spans += [_sent(span, resource, headers) for span in scope.spans]
            self._came.notify_all()

    def ask(self) -> None:
        with self._came:
            self.asked += 1
            self._came.notify_all()

    def wait(self, name: str, count: int = 1) -> list[Sent]:
        """Return the spans of this name, when that many have come."""

        def found() -> list[Sent]:
            return [span for span in self._spans if span.name == name]

        with self._came:
            told = self._came.wait_for(lambda: len(found()) >= count, PATIENCE)
            assert told, f"{count} of {name!r} have not come, but {[s.name for s in self._spans]}"
            return found()

    def wait_asked(self) -> None:
        """Return when somebody has sent something, answered or not."""
        with self._came:
            assert self._came.wait_for(lambda: self.asked, PATIENCE)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # the name that http.server calls
        collector = self.server
        assert isinstance(collector, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector.ask()
        if collector.hangs:
            collector.over.wait()
            return
        if self.path == "/v1/traces":
            collector.take(body, dict(self.headers.items()))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _sent(span: Any, resource: Mapping[str, Any], headers: Mapping[str, str]) -> Sent:
    return Sent(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == span.status.STATUS_CODE_ERROR,
        _values(span.attributes),
        resource,
        headers,
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def collector(*, hangs: bool = False) -> Generator[Collector]:
    with Collector(hangs=hangs) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            found.over.set()
            found.shutdown()
            thread.join()
