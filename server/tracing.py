"""OpenTelemetry at the edge: the SDK's spans of MCP messages, sent where each client's own variables say.

Without such variables nothing is loaded and nothing done. Who embeds `create_server` has a tracer provider of his own,
or none: only the programs that serve a client call `traced`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from bilt_mcp.engine import trace_settings

if TYPE_CHECKING:
    from bilt_mcp.engine import SpanSender

log = logging.getLogger("bilt_mcp.server")

FINISH_SECONDS = 1.0
"""How long the last spans of a client that has gone may take; clients kill a server two seconds after their end."""


def trace_context() -> dict[str, str]:
    """The place of the current call in its trace: TRACEPARENT and perhaps TRACESTATE, or nothing.

    Also where we send no spans: a client that has sent its own place sees the steps' tools go on from there.
    """
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:  # it comes with the MCP SDK, for now
        return {}
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {name.upper(): value for name, value in carrier.items()}


@asynccontextmanager
async def traced(environ: Mapping[str, str]) -> AsyncGenerator[None]:
    """Have the spans of what is done within sent where `environ` says; never fails for their sake."""
    settings = trace_settings(environ)
    if not settings:
        yield
        return
    sender = None
    try:
        # A thread, because the imports take a quarter of a second, and others may be served here.
        sender = await anyio.to_thread.run_sync(_open, settings)
    except ImportError:
        log.warning(
            "the variables ask for OpenTelemetry spans, but its SDK is not installed, so none are sent: "
            'install "bilt-mcp[otel]", or set OTEL_SDK_DISABLED=true'
        )
    except Exception as error:
        log.warning("no OpenTelemetry spans are sent: %s", error)
    if sender is None:
        yield
        return
    from .span_routing import route_to

    try:
        with route_to(sender.provider):
            yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(sender.finish, FINISH_SECONDS)


def _open(settings: Mapping[str, str]) -> SpanSender:
    from bilt_mcp.engine import SpanSender

    return SpanSender(settings)
