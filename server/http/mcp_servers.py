"""An MCP server for each credential: what one has, its sessions above all, no other can name.

Each is made by the first request of its credential, and goes when nobody has asked for long, or room is needed.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio

from bilt_mcp.server.app import Clients, create_server

from .errors import Refused
from .identity import Identity
from .mcp_sessions import SESSION_SECONDS, Sessions
from .site import Site, caller

log = logging.getLogger("bilt_mcp.server")

MOST_SERVERS = 256
"""Credentials that are served at a time; beyond, the one that has not asked for longest makes room."""
IDLE_SECONDS = SESSION_SECONDS + 60
"""How long a server stays that nobody asks: not shorter than its sessions."""
MOST_STREAMS = 1000
"""Streams of live updates of one credential."""


Which = tuple[str, str, str | None, str, bool]
"""A caller, by his credential and all else that a server is made of."""


class _Served:
    """A server, and who uses it."""

    def __init__(self) -> None:
        self.users = 0
        self.used_at = time.monotonic()
        self.ready = anyio.Event()
        self.sessions: Sessions | None = None
        self.over = anyio.CancelScope()
        """Around all of it."""

    @contextmanager
    def used(self) -> Generator[None]:
        """Keep it for as long as this, and some time more."""
        self.users += 1
        self.over.deadline = math.inf
        try:
            yield
        finally:
            self.users -= 1
            self.used_at = time.monotonic()
            if not self.users:
                self.over.deadline = anyio.current_time() + IDLE_SECONDS


class McpServers:
    """The servers of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.served: dict[Which, _Served] = {}
        """By whom they serve."""

    @asynccontextmanager
    async def serving(self, identity: Identity) -> AsyncGenerator[Sessions]:
        """The server of a credential, which stays for as long as it is used. Raises `Refused` when there is no room."""
        served = self.served.get(_which(identity))
        if served is None or served.over.cancel_called:
            served = self._start(identity)
        with served.used():
            await served.ready.wait()
            assert served.sessions is not None, "it could not be started; the log says why"
            yield served.sessions

    def _start(self, identity: Identity) -> _Served:
        if len(self.served) >= MOST_SERVERS:
            self._make_room()
        served = self.served[_which(identity)] = _Served()
        # Not by the request's own task: that may end first, and a server must be left where it was entered.
        self._site.tasks.start_soon(self._run, identity, served)
        return served

    def _make_room(self) -> None:
        idle = [found for found in self.served.items() if not found[1].users]
        if not idle:
            raise Refused(503, "too_many_callers", "Too many callers at a time. Try again later.")
        which, oldest = min(idle, key=lambda found: found[1].used_at)
        del self.served[which]
        oldest.over.cancel()

    async def _run(self, identity: Identity, served: _Served) -> None:
        try:
            with served.over:
                async with self._sessions(identity).open() as sessions:
                    served.sessions = sessions
                    served.ready.set()
                    await anyio.sleep_forever()
        except Exception:
            log.exception("the MCP server of %s ended", identity.name)
        finally:
            if self.served.get(_which(identity)) is served:
                del self.served[_which(identity)]
            served.ready.set()

    def _sessions(self, identity: Identity) -> Sessions:
        site = self._site
        server = create_server(
            site.config_of(identity),
            stores=site.stores,
            tools=site.tools,
            clients=Clients(
                caller=partial(caller, identity, "mcp http"),
                read_only=identity.read_only,
                most_streams=MOST_STREAMS,
            ),
        )
        return Sessions(server, site.settings.most_body_bytes)


def _which(identity: Identity) -> Which:
    account = identity.account
    return identity.credential, str(account), account.project_id, identity.name, identity.read_only
