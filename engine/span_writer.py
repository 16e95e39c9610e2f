"""Makes finished spans of OpenTelemetry's SDK and sends them. Loaded in a thread, when the first step has ended."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from bilt_mcp.state import VERSION

from .span_sender import SpanSender
from .step_spans import Finished
from .tracing import Place


class SpanWriter:
    """Writes spans of one destination, from one thread."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Raises `UnfitSettings`."""
        self._ids = _Given()
        # Whether a trace is kept was decided where it began.
        self._sender = SpanSender(settings, sampler=ALWAYS_ON, id_generator=self._ids)
        self._tracer = self._sender.provider.get_tracer("bilt-mcp", VERSION)

    def write(self, span: Finished) -> None:
        """Hand it on to be sent. Does not wait."""
        self._ids.place = span.place
        made = self._tracer.start_span(
            span.name,
            context=Context() if span.parent is None else _context(span.parent),
            start_time=span.started_ns,
            attributes=span.attributes,
        )
        if span.is_error:
            made.set_attribute("error.type", span.outcome)
            made.set_status(Status(StatusCode.ERROR, span.outcome))
        made.end(span.ended_ns)

    def finish(self, seconds: float) -> None:
        """See `SpanSender.finish`."""
        self._sender.finish(seconds)


class _Given(IdGenerator):
    """The ids of spans are known to their steps long before the SDK hears of them."""

    place = Place(1, 1)

    def generate_span_id(self) -> int:
        return self.place.span_id

    def generate_trace_id(self) -> int:
        return self.place.trace_id


def _context(place: Place) -> Context:
    parent = SpanContext(
        place.trace_id,
        place.span_id,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([place.state]),
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())
