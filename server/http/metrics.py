"""`/metrics`: what the gate has counted, in the text format of Prometheus. No label tells of a caller or of an id.

It is of all accounts together, so who has a key of another account than this machine's does not get it: of others' work
he sees nothing, not even how much there is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bilt_mcp.server.config import LOCAL_ACCOUNT
from bilt_mcp.state import SQLITE_VERSION, VERSION

from .doorman import NOBODY
from .errors import Refused
from .identity import Identity, identity_of
from .operations import Answer, Operation
from .readiness import Findings, Readiness
from .site import Site
from .traffic import BOUNDS, Traffic

if TYPE_CHECKING:
    from prometheus_client.core import Metric

OPERATIONS = (
    Operation(
        "get",
        "/metrics",
        "metrics",
        "Counts for Prometheus. Needs a key of this machine's account, unless only this machine can connect.",
        "health",
        {200: Answer("The counts.", media="text/plain")},
        open_here=True,
    ),
)


def routes(site: Site, readiness: Readiness) -> list[BaseRoute]:
    """The route."""

    async def metrics(request: Request) -> Response:
        _refuse_tenants(identity_of(request.scope))
        found = await readiness.look()
        # A thread, because the import takes a sixth of a second the first time.
        text = await anyio.to_thread.run_sync(_text, site, found)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return [Route("/metrics", metrics, methods=["GET"])]


def _refuse_tenants(identity: Identity) -> None:
    if identity == NOBODY.identity:
        return  # it is open to everybody here
    account = identity.account
    if account != LOCAL_ACCOUNT or account.project_id is not None:
        told = "This tells of all accounts, and your key is for one, or for one project."
        hint = "Make a key for it with: bilt-mcp keys create NAME --read-only"
        raise Refused(403, "not_for_tenants", told, hint=hint)


class _Collector:
    """What `prometheus_client` makes text of."""

    def __init__(self, site: Site, found: Findings) -> None:
        self._site = site
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """Every family."""
        yield from _of_requests(self._site.traffic)
        yield from _of_now(self._site, self._found)


def _of_requests(traffic: Traffic) -> Iterable[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    kind = ["surface", "route", "method"]
    requests = CounterMetricFamily(
        "bilt_http_requests", "Requests that were answered.", labels=[*kind, "status"]
    )
    for (which, status), many in list(traffic.answered.items()):
        requests.add_metric([*which, str(status)], many)
    yield requests
    seconds = HistogramMetricFamily(
        "bilt_http_request_seconds", "How long answers took; streams aside.", labels=kind
    )
    bounds = [*map(str, BOUNDS), "+Inf"]
    for which, latency in list(traffic.latency.items()):
        buckets = list(zip(bounds, accumulate(latency.buckets), strict=True))
        seconds.add_metric(list(which), buckets, latency.seconds)
    yield seconds
    refused = CounterMetricFamily(
        "bilt_http_refused",
        "Requests that the gate refused, by the code of the answer; rate_limited is one.",
        labels=["surface", "code"],
    )
    for (surface, code), many in list(traffic.refused.items()):
        refused.add_metric([surface, code], many)
    yield refused


def _of_now(site: Site, found: Findings) -> Iterable[Metric]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    for name, told, value in (
        ("bilt_http_open_requests", "Requests that are being answered.", len(site.requests)),
        ("bilt_http_open_streams", "Answers without an end of their own.", site.traffic.streams),
        ("bilt_ready", "Whether the server can do its work.", found.good),
        (
            "bilt_worker_alive",
            "Whether a worker is there; none is while nothing runs.",
            found.worker == "alive",
        ),
    ):
        yield GaugeMetricFamily(name, told, value=float(value))
    active = GaugeMetricFamily(
        "bilt_workflows_active", "Workflows of all accounts that are not final.", labels=["status"]
    )
    for status, many in found.active.items():
        active.add_metric([str(status)], many)
    yield active
    python = ".".join(map(str, sys.version_info[:3]))
    build = {"version": VERSION, "python": python, "sqlite": SQLITE_VERSION}
    yield InfoMetricFamily("bilt_build", "What this server is.", value=build)


def _text(site: Site, found: Findings) -> bytes:
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(site, found))
    return generate_latest(registry)
