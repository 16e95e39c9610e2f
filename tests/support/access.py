"""Keys for tests of who is let in."""

from __future__ import annotations

import hashlib

from bilt_mcp.state import Account, ApiKey, SqliteAccess

TEAM = Account("team", "a-project")
DAY = 86_400.0
"""In seconds."""


def digest(text: str) -> bytes:
    """Of a secret that needs not be one."""
    return hashlib.sha256(text.encode()).digest()


async def made(access: SqliteAccess, name: str = "ci", account: Account = TEAM) -> ApiKey:
    """A key whose secret is its name."""
    return await access.create_key(name, account, digest(name), f"bilt_{name}", read_only=False)
