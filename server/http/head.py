"""What the gate reads of a request before anything else: the few headers that it decides by."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from starlette.types import Scope

from .errors import Refused

_ONCE = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"transfer-encoding",
    }
)


class Head:
    """The headers of one request. One that may stand there once and stands there twice is refused."""

    __slots__ = ("_cookies", "_found")

    def __init__(self, scope: Scope) -> None:
        """Raises `Refused`."""
        found: dict[bytes, bytes] = {}
        cookies: list[bytes] = []
        for name, value in scope["headers"]:
            if name in _ONCE:
                if name in found:
                    told = f"The header {name.decode()} came twice. Send it once."
                    raise Refused(400, "invalid_request", told)
                found[name] = value
            elif name == b"cookie":
                cookies.append(value)
        if b"content-length" in found and b"transfer-encoding" in found:
            # Who stands before us may have believed the other one, and so see requests where we see a body.
            told = "Content-Length and Transfer-Encoding exclude each other. Send one of them."
            raise Refused(400, "invalid_request", told)
        self._found = found
        self._cookies = cookies

    def get(self, name: bytes) -> bytes | None:
        """One of the headers named above, in lower case."""
        return self._found.get(name)

    @property
    def body_bytes(self) -> int | None:
        """How many bytes of body come; None where the request does not say."""
        if b"transfer-encoding" in self._found:
            return None
        try:
            return int(self._found.get(b"content-length", b"0"))
        except ValueError:
            raise Refused(400, "invalid_request", "Content-Length is not a number.") from None

    def cookie(self, name: str) -> str | None:
        """The value of a cookie. None also where two differ: one of them was planted."""
        values = set[str]()
        for header in self._cookies:
            for part in header.decode("latin-1").split(";"):
                key, _, value = part.strip().partition("=")
                if key == name:
                    values.add(value.strip('"'))
        return values.pop() if len(values) == 1 else None


def address_of(scope: Scope) -> str:
    """Where a request came from, for what is counted by address: of IPv6 the network, which one caller has whole."""
    client = scope.get("client")
    return _counted(client[0]) if client else "unknown"


@lru_cache(4096)
def _counted(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
