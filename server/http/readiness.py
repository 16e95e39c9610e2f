"""Whether the server can do its work: looked at when somebody asks, and at most once a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from bilt_mcp.engine import LocalEngine
from bilt_mcp.state import Status, StoreFull, StoreLocation, StoreUnavailable

from .site import Site

log = logging.getLogger("bilt_mcp.server")

KEPT_SECONDS = 1.0
STORE_SECONDS = 3.0
"""How long the store may take to say that it can be written."""


@dataclass(frozen=True)
class Findings:
    """What was seen, in words that tell nothing of anybody's sessions."""

    store: str
    """`ok`, `full`, `unavailable` or `slow`."""
    worker: str
    """`alive`, `idle` (nothing waits for one), `missing` (work waits, and none can be started) or `unknown`."""
    active: Mapping[Status, int] = field(default_factory=dict[Status, int])
    """How many workflows are active, by status."""

    @property
    def good(self) -> bool:
        """Whether work can be taken and done."""
        return self.store == "ok" and self.worker in ("alive", "idle")


class Readiness:
    """Looks at one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._location = StoreLocation.of(site.config.store)
        self._looking = anyio.Lock()
        self._found: Findings | None = None
        self._at = 0.0

    async def look(self) -> Findings:
        """How it is, or was less than a second ago; many who ask at once share one look."""
        async with self._looking:
            found = self._found
            if found is None or time.monotonic() - self._at > KEPT_SECONDS:
                found = self._found = await self._look()
                self._at = time.monotonic()
        return found

    async def _look(self) -> Findings:
        try:
            with anyio.fail_after(STORE_SECONDS):
                store = await self._site.stores.get(self._location)
                active = await store.pulse()
                await self._site.access.look("health", 1)
            config = self._site.config
            engine = LocalEngine(
                store, self._location, config.environ, config.worker_idle_seconds, config.projects
            )
            return Findings("ok", await engine.worker(), active)
        except TimeoutError:
            return Findings("slow", "unknown")
        except StoreFull as error:
            log.warning("the store is full: %s", error)
            return Findings("full", "unknown")
        except StoreUnavailable as error:
            log.warning("the store cannot be used: %s", error)
            return Findings("unavailable", "unknown")
