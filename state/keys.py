"""Keys as they are handed out: what they look like, and what is kept of them."""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "bilt_live_"
SECRET_BYTES = 32
_SHOWN = 6
_FORM = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)


def new_key() -> tuple[str, str]:
    """A new secret, and how it begins: enough to tell it from others, not to use it."""
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    return secret, secret[: len(PREFIX) + _SHOWN]


def looks_like_key(text: str) -> bool:
    """Whether it could be one of ours: what could not need not be looked for."""
    return _FORM.fullmatch(text) is not None


def digest_of(secret: str) -> bytes:
    """What is kept of a secret of 256 random bits: no slower hash would protect it better."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
