"""What seals a question on its way through the client: a key of the store, so that any process can take the answer."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mcp.server.request_state import AESGCMRequestStateCodec, RequestStateSecurity

ANSWER_SECONDS = 86_400.0
"""How long a person may take to answer; the SDK's ten minutes are a coffee."""
_KEY_BYTES = 32


def request_state_security(key_file: Path) -> RequestStateSecurity:
    """The SDK's sealing of `requestState`, with the key in this file of the store (0600), made when first used.

    So an answer is also good for the process that took over from the one that asked.
    """
    return RequestStateSecurity(codec=_StoreCodec(key_file), ttl=ANSWER_SECONDS)


class _StoreCodec:
    """`RequestStateCodec`; the file is looked at when somebody is asked, not when a server starts."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        self._made: AESGCMRequestStateCodec | None = None

    def seal(self, payload: bytes) -> str:
        """See `RequestStateCodec.seal`."""
        return self._codec().seal(payload)

    def unseal(self, token: str) -> bytes:
        """See `RequestStateCodec.unseal`."""
        return self._codec().unseal(token)

    def _codec(self) -> AESGCMRequestStateCodec:
        if self._made is None:
            self._made = AESGCMRequestStateCodec([self._key()])
        return self._made

    def _key(self) -> bytes:
        try:
            return _read(self._key_file)
        except (FileNotFoundError, ValueError):
            pass
        new = secrets.token_bytes(_KEY_BYTES)
        mine = self._key_file.with_name(f"{self._key_file.name}.{os.getpid()}")
        try:
            mine.unlink(missing_ok=True)
            with open(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(new)
            try:
                os.link(mine, self._key_file)
            except FileExistsError:
                pass  # somebody else was first, or what is there is no key
            else:
                return new
            finally:
                mine.unlink()
            return _read(self._key_file)
        except (OSError, ValueError):
            return new  # good as long as this process lives


def _read(file: Path) -> bytes:
    key = file.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ValueError(f"{file} is not a key")
    return key
