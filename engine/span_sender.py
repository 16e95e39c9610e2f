"""Sends spans with OpenTelemetry's SDK, in threads: whoever makes a span never waits for the network.

Import it only where spans are wanted: it takes a quarter of a second, and needs the extra `otel`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from urllib.parse import unquote

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.util.re import parse_env_headers

from bilt_mcp.state import VERSION

DELAY_MILLISECONDS = 1000
"""How long spans are gathered. Clients give a server two seconds to go, so not the SDK's five."""
DEFAULT_ENDPOINT = "http://localhost:4318"
DEFAULT_SECONDS = 10.0


class UnfitSettings(ValueError):
    """A variable whose value cannot be used; the text says which."""


class SpanSender:
    """A tracer provider whose spans go where the settings say, and a way to end it in time."""

    def __init__(
        self,
        settings: Mapping[str, str],
        *,
        sampler: Sampler | None = None,
        id_generator: IdGenerator | None = None,
    ) -> None:
        """`settings` is from `trace_settings`; nothing else is asked, whatever this process was started with.

        Without a `sampler` the settings name one. Raises `UnfitSettings`.
        """
        self.provider = TracerProvider(
            sampler=sampler or _sampler(settings),
            resource=_resource(settings),
            id_generator=id_generator,
            shutdown_on_exit=False,  # it would wait for half a minute
        )
        exporter = _exporter(settings)
        processor = BatchSpanProcessor(exporter, schedule_delay_millis=DELAY_MILLISECONDS)
        self.provider.add_span_processor(processor)

    def finish(self, seconds: float) -> None:
        """Send what is left, for at most so long; what is not sent by then is lost."""
        ending = threading.Thread(target=self.provider.shutdown, daemon=True)
        ending.start()
        ending.join(seconds)


def _exporter(settings: Mapping[str, str]) -> OTLPSpanExporter:
    def said(name: str) -> str | None:
        """The variable for traces, or else the one for everything."""
        kept = settings.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
        return kept or settings.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip() or None

    protocol = said("PROTOCOL")
    if protocol not in (None, "http/protobuf"):
        raise UnfitSettings(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; only http/protobuf is")
    endpoint = settings.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    if not endpoint:
        base = settings.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or DEFAULT_ENDPOINT
        endpoint = base.rstrip("/") + "/v1/traces"
    if not endpoint.startswith(("http://", "https://")):
        raise UnfitSettings("OTEL_EXPORTER_OTLP_ENDPOINT does not begin with http:// or https://")
    try:
        seconds = float(said("TIMEOUT") or DEFAULT_SECONDS)
        compression = Compression((said("COMPRESSION") or "none").lower())
    except ValueError as error:
        raise UnfitSettings(f"OTEL_EXPORTER_OTLP_TIMEOUT or _COMPRESSION: {error}") from None
    return OTLPSpanExporter(
        endpoint=endpoint,
        headers=parse_env_headers(said("HEADERS") or "", liberal=True),
        timeout=seconds,
        compression=compression,
        certificate_file=said("CERTIFICATE"),
        client_key_file=said("CLIENT_KEY"),
        client_certificate_file=said("CLIENT_CERTIFICATE"),
    )


def _resource(settings: Mapping[str, str]) -> Resource:
    told = (pair.partition("=") for pair in settings.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    attributes = {unquote(n.strip()): unquote(v.strip()) for n, _, v in told if n.strip() and v}
    if name := settings.get("OTEL_SERVICE_NAME", "").strip():
        attributes[SERVICE_NAME] = name
    return Resource.create({SERVICE_NAME: "bilt-mcp", SERVICE_VERSION: VERSION, **attributes})


def _sampler(settings: Mapping[str, str]) -> Sampler:
    named = settings.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    kind = named.removeprefix("parentbased_")
    if kind == "traceidratio":
        ratio = settings.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
        try:
            root: Sampler = TraceIdRatioBased(float(ratio))
        except ValueError:
            raise UnfitSettings(f"OTEL_TRACES_SAMPLER_ARG is {ratio!r}") from None
    elif kind in ("always_on", "always_off"):
        root = ALWAYS_ON if kind == "always_on" else ALWAYS_OFF
    else:
        raise UnfitSettings(f"OTEL_TRACES_SAMPLER is {named!r}, which is not known")
    return root if kind == named else ParentBased(root)
