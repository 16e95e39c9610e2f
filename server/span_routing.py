"""One process, many clients, each with a tracer provider of its own: OpenTelemetry has only one for a process."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry.trace import (
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    Tracer,
    TracerProvider,
    get_tracer_provider,
    set_tracer_provider,
)

_NOBODY = NoOpTracerProvider()
_PROVIDER: ContextVar[TracerProvider] = ContextVar("provider", default=_NOBODY)


@contextmanager
def route_to(provider: TracerProvider) -> Generator[None]:
    """Within, in this task and those that it starts, spans are made by `provider`.

    Where somebody has set a tracer provider for the whole process, that one goes on making all of them.
    """
    if isinstance(get_tracer_provider(), ProxyTracerProvider):
        set_tracer_provider(_Routing())
    token = _PROVIDER.set(provider)
    try:
        yield
    finally:
        _PROVIDER.reset(token)


class _Routing(TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        return _RoutingTracer(args, kwargs)


class _RoutingTracer(Tracer):
    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = args, kwargs

    def _tracer(self) -> Tracer:
        return _PROVIDER.get().get_tracer(*self._args, **self._kwargs)

    def start_span(self, *args: Any, **kwargs: Any) -> Span:
        return self._tracer().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._tracer().start_as_current_span(*args, **kwargs)
