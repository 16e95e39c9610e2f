"""How the HTTP server was told to run: checked as a whole, then passed down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8765
MOST_BODY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class HttpSettings:
    """Where to listen, whom to let in, and how often."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    """0: any free one."""
    no_auth: bool = False
    """Everybody who reaches the port is this machine's user. On loopback only."""
    public_urls: tuple[str, ...] = ()
    """How it is reached through what terminates TLS: `https://bilt.example.com` declares that, its Host and Origin."""
    origins: tuple[str, ...] = ()
    """Origins of pages that may call it besides its own."""
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses and networks whose X-Forwarded-For and -Proto are believed, where there is a public URL."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    key_rate: int = 100
    """Requests in any 60 seconds of one key; 0: no limit."""
    login_rate: int = 60
    """The same of one login."""
    failure_rate: int = 20
    """Failed authentications in any 60 seconds from one address."""
    oauth_issuer: str | None = None
    oauth_audience: str | None = None
    most_body_bytes: int = MOST_BODY_BYTES
    body_seconds: float = 30.0
    """How long the body of a request may take to arrive."""
