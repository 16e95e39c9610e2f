"""What somebody's variables ask of OpenTelemetry, and places in a trace as text. Loads nothing of OpenTelemetry."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

TRACEPARENT, TRACESTATE = "TRACEPARENT", "TRACESTATE"
"""The variables in which a process is told its place in a trace (W3C Trace Context, in capitals)."""
MOST_STATE = 512
"""Longest TRACESTATE that is passed on; it is text from outside."""

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def trace_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the OTEL_ variables where they ask for spans to be sent, else nothing.

    They do with an OTLP endpoint, or with `OTEL_TRACES_EXPORTER=otlp`, unless `OTEL_SDK_DISABLED` is true or another
    exporter is named. The values may hold credentials.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    named = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    wanted = "otlp" in named.split(",") if named else any(environ.get(n) for n in _ENDPOINTS)
    if not wanted:
        return {}
    return {n: v for n, v in environ.items() if n.startswith("OTEL_") and v.isprintable()}


def without_telemetry(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a process that serves many may inherit: nothing that is only meant for one client's spans."""
    return {n: v for n, v in environ.items() if not n.startswith(("BILT_", "OTEL_"))}


@dataclass(frozen=True)
class Place:
    """A span's place in its trace."""

    trace_id: int
    span_id: int
    sampled: bool = True
    state: str = ""

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Place | None:
        """The place that TRACEPARENT and TRACESTATE name, or None."""
        found = _PARENT.fullmatch(variables.get(TRACEPARENT, ""))
        if found is None:
            return None
        trace_id, span_id, flags = (int(part, 16) for part in found.groups())
        state = variables.get(TRACESTATE, "")
        if not trace_id or not span_id:
            return None
        return cls(trace_id, span_id, bool(flags & 1), state if len(state) <= MOST_STATE else "")

    @classmethod
    def below(cls, parent: Place | None) -> Place:
        """A new place, in the parent's trace or a new one."""
        span_id = int.from_bytes(os.urandom(8)) or 1
        if parent is None:
            return cls(int.from_bytes(os.urandom(16)) or 1, span_id)
        return cls(parent.trace_id, span_id, parent.sampled, parent.state)

    @property
    def variables(self) -> dict[str, str]:
        """TRACEPARENT, and TRACESTATE where there is one."""
        parent = f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"
        return {TRACEPARENT: parent, **({TRACESTATE: self.state} if self.state else {})}
