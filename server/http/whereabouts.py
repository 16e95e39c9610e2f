"""Under which names the server may be called, and by pages of which origins: both lists are closed.

A foreign name means a page that had its own name lead here (DNS rebinding); a foreign origin is a page that calls on
behalf of whoever looks at it. Neither may reach any route.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from .settings import HttpSettings

METADATA = "/.well-known/oauth-protected-resource"
"""Where a server that believes an OAuth issuer says so (RFC 9728)."""
WILDCARDS = ("0.0.0.0", "::", "")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9, _-]{1,1024}")

_EXPOSED = (
    b"Mcp-Session-Id, Retry-After, WWW-Authenticate, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    b"X-Request-Id"
)

Headers = list[tuple[bytes, bytes]]


class Whereabouts:
    """The two lists of one server."""

    def __init__(self, settings: HttpSettings) -> None:
        """`settings.port` is the one that it listens on."""
        scheme = "https" if settings.tls_cert else "http"
        names: set[str] = set(_LOOPBACK)
        if settings.host not in WILDCARDS:
            names.add(in_url(settings.host))
        hosts, origins = set[str](), set[str]()
        for name in names:
            own = origin_of(f"{scheme}://{name}:{settings.port}")
            hosts |= _ways_to_say(own)
            origins.add(own)
        for url in settings.public_urls:
            own = origin_of(url)
            hosts |= _ways_to_say(own)
            origins.add(own)
        origins |= {origin_of(origin) for origin in settings.origins}
        self._hosts = frozenset(host.encode("ascii") for host in hosts)
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def is_ours(self, host: bytes | None) -> bool:
        """Whether a Host header names this server."""
        return host is not None and (host in self._hosts or host.lower() in self._hosts)

    def may_call(self, origin: bytes) -> bool:
        """Whether pages of this origin may call. `null` is the origin of files and sandboxes: anybody's."""
        return origin in self._origins

    def shared(self, origin: bytes, *, cookies: bool) -> Headers:
        """What lets the page of an origin that may call read the answer."""
        told = [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]
        if cookies:
            told.append((b"access-control-allow-credentials", b"true"))
        return told

    def preflight(self, wanted: bytes | None) -> Headers:
        """What a page that may call is told of how it may; `wanted` are the headers it asks for."""
        told = [
            (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
            (b"access-control-max-age", b"600"),
        ]
        if wanted is not None and _HEADER_NAMES.fullmatch(wanted):
            told.append((b"access-control-allow-headers", wanted))
        return told


def origin_of(url: str) -> str:
    """`scheme://host` or `scheme://host:port` of an address that has nothing else. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is not http:// or https:// and a host")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{url!r} has more than a scheme, a host and a port")
    name = in_url(parts.hostname.encode("idna" if ":" not in parts.hostname else "ascii").decode())
    default = _DEFAULT_PORTS[parts.scheme]
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{name}{port}"


def in_url(host: str) -> str:
    """A host as it stands in an address: IPv6 in brackets, and in one spelling."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower()
    return f"[{address.compressed}]" if address.version == 6 else str(address)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it by this name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def base_url(settings: HttpSettings) -> str:
    """How callers reach the server, as it should be written down."""
    return origin_of(settings.public_urls[0]) if settings.public_urls else own_url(settings)


def own_url(settings: HttpSettings) -> str:
    """The server itself, whatever is in front of it."""
    host = "127.0.0.1" if settings.host in WILDCARDS else settings.host
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{in_url(host)}:{settings.port}"


def is_local(settings: HttpSettings) -> bool:
    """Whether only this machine can connect, and nothing passes on what others ask."""
    return not settings.public_urls and is_loopback(settings.host)


def _ways_to_say(origin: str) -> set[str]:
    """The Host headers that mean an origin: the default port may be said or left out."""
    parts = urlsplit(origin)
    if parts.port is not None:
        return {parts.netloc}
    return {parts.netloc, f"{parts.netloc}:{_DEFAULT_PORTS[parts.scheme]}"}
