"""The keeper's end of the control socket: lines of JSON both ways, never waiting for the worker.

Part of the keeper's program (see keeper.py): standard library only, quick to import.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Channel:
    """Events out, commands in; `lost` from the moment that the worker is known to be gone."""

    def __init__(self, fd: int, poller: select.poll) -> None:
        self.fd = fd
        self.poller = poller
        self.lost = False
        self._inbox = bytearray()
        self._outbox = bytearray()
        poller.register(fd, select.POLLIN)

    def greet(self, line: str) -> None:
        """Send the first event as it is; only then load json: nobody needs to wait 7 ms for it."""
        self._outbox += line.encode() + b"\n"
        self.flush()
        import json

        self._json = json

    def send(self, event: str, **fields: Any) -> None:
        """Queue one event and send what the socket takes."""
        self._outbox += self._json.dumps({"event": event, **fields}).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes; poll wakes the loop for the rest."""
        if self.lost:
            return
        try:
            while self._outbox:
                del self._outbox[: os.write(self.fd, self._outbox)]
        except BlockingIOError:
            pass
        except OSError:
            self._lose()
            return
        both = select.POLLIN | select.POLLOUT
        self.poller.register(self.fd, both if self._outbox else select.POLLIN)

    def receive(self) -> list[dict[str, Any]]:
        """Take in the commands that arrived."""
        if self.lost:
            return []
        try:
            piece = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            piece = b""
        if not piece:
            self._lose()
            return []
        *lines, self._inbox = (self._inbox + piece).split(b"\n")
        return [self._json.loads(bytes(line)) for line in lines]

    def empty(self) -> None:
        """Return when everything is sent, or nobody is left to read it."""
        while self._outbox and not self.lost:
            self.poller.poll()
            self.flush()

    def _lose(self) -> None:
        self.lost = True
        self.poller.unregister(self.fd)
        os.close(self.fd)
