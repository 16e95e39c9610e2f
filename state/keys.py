"""Keys as they are handed out: what they look like, and what is kept of them."""

from __future__ import annotations

import hashlib
import secrets

KEY_PREFIX = "bilt_live_"
SECRET_BYTES = 32
_SHOWN = 6


def new_key() -> tuple[str, str]:
    """A new secret, and how it begins: enough to tell it from others, not to use it."""
    secret = KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    return secret, secret[: len(KEY_PREFIX) + _SHOWN]


def digest_of(secret: str) -> bytes:
    """What is kept of a secret of 256 random bits: no slower hash would protect it better."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
