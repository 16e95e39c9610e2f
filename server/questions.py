"""The ids under which a client is asked: none is used twice on a connection, also when another process takes it over.

The SDK counts from 1 in every process. So a person's late answer to what one process has asked, about one gate, could
be taken for the answer to what the next one asks, about another.
"""

from __future__ import annotations

import os

from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

_EACH = 1 << 16
"""Questions of a process. With the random part an id has 31 bits, which every client can keep."""


class Questions:
    """Gives the SDK's ids a part that no other process has, and takes it away again."""

    def __init__(self) -> None:
        self._first = int.from_bytes(os.urandom(2), "big") // 2 * _EACH

    def asked(self, message: JSONRPCMessage) -> JSONRPCMessage:
        """What goes to the client, with the id of its question."""
        if isinstance(message, JSONRPCRequest) and isinstance(message.id, int):
            return message.model_copy(update={"id": self._first + message.id})
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            params = message.params or {}
            if isinstance(asked := params.get("requestId"), int):
                taken_back = {**params, "requestId": self._first + asked}
                return message.model_copy(update={"params": taken_back})
        return message

    def answered(self, answer: JSONRPCResponse | JSONRPCError) -> JSONRPCMessage | None:
        """A client's answer with the SDK's id; None when an earlier process has asked, or nobody."""
        try:
            own = int(answer.id or 0) - self._first
        except ValueError:
            return None
        return answer.model_copy(update={"id": own}) if 0 < own < _EACH else None
