"""`bilt-mcp serve` below its command line: options become settings, and failures sentences."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

import anyio

from bilt_mcp.server.config import Config, ConfigError
from bilt_mcp.state import StoreUnavailable

from .serve import serve_http
from .settings import HttpSettings


def serve(given: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit code: 2 where something must be corrected first."""
    gc.freeze()
    gc.enable()
    try:
        config = Config.from_environ(project=given.project, store=given.store)
        anyio.run(serve_http, config, _settings(given))
    except (ConfigError, StoreUnavailable) as error:
        print(f"bilt-mcp: {error}", file=sys.stderr)
        return 2
    return 0


def _settings(given: argparse.Namespace) -> HttpSettings:
    options: dict[str, Any] = {
        "host": given.host,
        "port": given.port,
        "no_auth": given.no_auth,
        "public_urls": given.public_url and tuple(given.public_url),
        "origins": given.allow_origin and tuple(given.allow_origin),
        "trusted_proxies": given.trusted_proxy and tuple(given.trusted_proxy),
        "tls_cert": given.tls_cert and Path(given.tls_cert),
        "tls_key": given.tls_key and Path(given.tls_key),
        "key_rate": given.rate,
        "login_rate": given.chat_rate,
        "oauth_issuer": given.oauth_issuer and given.oauth_issuer.rstrip("/"),
        "oauth_audience": given.oauth_audience,
    }
    return HttpSettings(**{name: value for name, value in options.items() if value is not None})
