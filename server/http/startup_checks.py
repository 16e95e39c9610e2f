"""What must hold before a server may be started: everything that is wrong is told at once."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator

from bilt_mcp.server.config import Config, ConfigError
from bilt_mcp.state import SqliteAccess, StoreLocation

from .settings import HttpSettings
from .whereabouts import WILDCARDS, is_loopback, origin_of


async def check(config: Config, settings: HttpSettings) -> None:
    """Raises `ConfigError` with every problem, and `StoreUnavailable`."""
    problems = [
        *_where(settings),
        *_names(settings),
        *_tls(settings),
        *_numbers(settings),
        *_oauth(settings),
    ]
    if not settings.no_auth and settings.oauth_issuer is None and not await _has_keys(config):
        problems.append(
            f"nobody could use it: make a key first with: {config.terminal} keys create NAME "
            "(or let everybody on this machine in with --no-auth)"
        )
    if problems:
        raise ConfigError("; ".join(problems))


async def _has_keys(config: Config) -> bool:
    async with SqliteAccess(StoreLocation.of(config.store)) as access:
        return any(key.revoked_at is None for key in await access.keys())


def _addresses(host: str) -> list[str]:
    """What a host means; nothing where it means nothing."""
    if host in WILDCARDS:
        return ["0.0.0.0"]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(address[0]) for *_, address in found]


def _where(settings: HttpSettings) -> Iterator[str]:
    addresses = _addresses(settings.host)
    if not addresses:
        yield f"--host is {settings.host!r}, which is no address of this machine"
    is_local = all(map(is_loopback, addresses))
    if settings.no_auth and not (is_local and not settings.public_urls):
        yield (
            "--no-auth lets everybody in who reaches the port, so it needs a loopback --host and no --public-url"
        )
    if not is_local and not settings.tls_cert and not settings.public_urls:
        yield (
            f"--host {settings.host} can be reached by others, and keys must not travel in the clear: give "
            "--tls-cert and --tls-key, or --public-url https://... where something in front of it terminates TLS"
        )
    if settings.host in WILDCARDS and not settings.public_urls:
        yield (
            f"--host {settings.host} is no name that a caller could use: say with --public-url by which it is reached"
        )
    if not 0 <= settings.port <= 65_535:
        yield f"--port is {settings.port}; it must be from 0 to 65535"


def _names(settings: HttpSettings) -> Iterator[str]:
    for option, urls in (
        ("--public-url", settings.public_urls),
        ("--allow-origin", settings.origins),
    ):
        for url in urls:
            try:
                origin = origin_of(url)
            except ValueError as error:
                yield f"{option}: {error}"
                continue
            name = origin.removeprefix("http://").rsplit(":", 1)[0]
            if origin.startswith("http://") and option == "--public-url" and not is_loopback(name):
                yield f"--public-url {url} must begin with https://: keys must not travel in the clear"
    for proxy in settings.trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            yield f"--trusted-proxy: {error}"


def _tls(settings: HttpSettings) -> Iterator[str]:
    cert, key = settings.tls_cert, settings.tls_key
    if (cert is None) != (key is None):
        yield "--tls-cert and --tls-key are needed together"
    elif cert is not None and key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
        except OSError as error:  # ssl.SSLError is one
            told = error.strerror or str(error)
            yield f"--tls-cert {cert} and --tls-key {key} cannot be used: {told}"


def _numbers(settings: HttpSettings) -> Iterator[str]:
    for option, number in (("--rate", settings.key_rate), ("--chat-rate", settings.login_rate)):
        if not 0 <= number <= 1_000_000:
            yield f"{option} is {number}; it must be from 0 (no limit) to 1000000"


def _oauth(settings: HttpSettings) -> Iterator[str]:
    issuer = settings.oauth_issuer
    if (issuer is None) != (settings.oauth_audience is None):
        yield "--oauth-issuer and --oauth-audience are needed together"
    if issuer is not None:
        if settings.no_auth:
            yield "--no-auth and --oauth-issuer exclude each other"
        scheme, _, rest = issuer.partition("://")
        host = rest.partition("/")[0]
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if not host or not (scheme == "https" or (scheme == "http" and is_loopback(name))):
            yield f"--oauth-issuer {issuer} must begin with https://"
