"""One connection, as uvicorn has it, except that nobody may hold it without asking for anything.

uvicorn ends a connection that is silent after an answer, and nothing else: a head that never comes to its end, or the
rest of a body whose request was answered long ago, would hold it for ever, without any credential.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE_SECONDS = 15.0
"""How long a connection may stay that has no request to answer, whatever it sends."""
KEPT_FREE = 256
"""Descriptors that connections leave to the store, to the start of a worker, and to those just being turned away."""


class Connection(H11Protocol):
    """Ends when its client does not get on. By h11, whatever else is installed: it bounds the size of a head."""

    _impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
        else:
            self._hurry()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._is_answering():
            self._calm_down()
        elif self._impatience is None and self.timeout_keep_alive_task is None:
            self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._calm_down()
        super().connection_lost(exc)

    def _hurry(self) -> None:
        self._impatience = self.loop.call_later(PATIENCE_SECONDS, self._end)

    def _calm_down(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _end(self) -> None:
        self._impatience = None
        if not self._is_answering():
            self.transport.close()

    def _is_answering(self) -> bool:
        return not getattr(self.cycle, "response_complete", True)  # before the first there is none


def most_connections() -> int:
    """How many there may be at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - KEPT_FREE if soft > 2 * KEPT_FREE else max(soft // 2, 1)
