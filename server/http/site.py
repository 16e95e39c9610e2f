"""What all routes of one HTTP server share: the stores, and a desk for each caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup

from bilt_mcp.server.app import OpenStores, open_desk
from bilt_mcp.server.config import LOCAL_ACCOUNT, Config
from bilt_mcp.state import AccessStore, Caller, SqliteAccess, StoreLocation
from bilt_mcp.tools import Desk, build_tools, shown_name

from .doorman import Doorman
from .identity import Identity
from .open_requests import OpenRequests
from .settings import HttpSettings
from .traffic import Traffic


class Site:
    """One HTTP server, whatever it is reached by."""

    def __init__(self, config: Config, settings: HttpSettings) -> None:
        self.config = config
        self.settings = settings
        self.stores = OpenStores()
        self.tools = build_tools()
        self.stopping = self.stores.stopping
        """Set when the server was told to stop: what would hold it up ends."""
        self.traffic = Traffic()
        self.doorman = Doorman(settings, lambda: self.access)
        self.requests = OpenRequests(lambda: self.tasks, self.stopping)
        self._access: AccessStore | None = None
        self._tasks: TaskGroup | None = None
        self._desks: dict[tuple[str, str | None], Desk] = {}

    @property
    def access(self) -> AccessStore:
        """Keys, logins and limits."""
        assert self._access is not None, "only within open()"
        return self._access

    @property
    def tasks(self) -> TaskGroup:
        """Tasks that end with the server."""
        assert self._tasks is not None, "only within open()"
        return self._tasks

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Have everything open that routes need."""
        location = StoreLocation.of(self.config.store)
        async with SqliteAccess(location) as access, anyio.create_task_group() as tasks:
            self._access, self._tasks = access, tasks
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await self.stores.close()

    async def desk(self, identity: Identity) -> Desk:
        """The desk of a caller: his account's, and nobody else's. Raises `StoreUnavailable`."""
        account = identity.account
        which = (str(account), account.project_id)
        desk = self._desks.get(which)
        if desk is None or desk.project is None:  # it may have one since
            desk = self._desks[which] = await open_desk(self.config_of(identity), self.stores)
        return desk

    def config_of(self, identity: Identity) -> Config:
        """The configuration of a server for this caller alone."""
        account = identity.account
        if account == LOCAL_ACCOUNT:
            return replace(self.config, account=account)
        # Of another account not even the names of projects may clash with ours.
        projects = self.config.projects or StoreLocation.of(self.config.store).folder / "projects"
        projects /= f"@{account}"
        return replace(self.config, account=account, is_host=True, projects=projects)


def caller(identity: Identity, surface: str, client: str) -> Caller:
    """Who asks, for the history and the audit. `client` is what his program says of itself."""
    return Caller(shown_name(client) or identity.name, surface, principal=identity.name)
