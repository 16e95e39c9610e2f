"""`bilt-mcp serve` as a team's server: a process, a key, a login; and the bare servers that it is compared with."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from bilt_mcp.state import Account, SqliteAccess, StoreLocation

from .http_wire import HttpWire
from .jsonrpc import PASSED_ON
from .product import HERE, server_argv

ACCOUNT = "local"
RATE = 100
"""Requests in a minute of a key, by default. What is counted for a key costs the more the more it has asked."""
START_SECONDS = 60
READY = re.compile(r"ready on (\S+)")


@dataclass(frozen=True)
class Served:
    """A server that takes requests."""

    url: str
    pid: int
    keys: Sequence[str] = ()

    def wire(self) -> HttpWire:
        """A connection."""
        return HttpWire(self.url)

    def callers(self) -> Sequence[Mapping[str, str]]:
        """The headers of callers who have a key each; of one who has none, where there are none."""
        return [{"Authorization": f"Bearer {key}"} for key in self.keys] or [{}]

    def login(self) -> str:
        """The cookie of a person who has logged in with a key."""
        with HttpWire(self.url) as wire:
            return wire.cookie("/auth/login", {"key": self.keys[0]})

    def person(self, cookie: str) -> HttpWire:
        """A connection of a person who has logged in."""
        return HttpWire(self.url, {"Cookie": cookie})


@dataclass(frozen=True)
class Starting:
    """A server that has been started: it costs a second, so others may be started meanwhile."""

    process: subprocess.Popen[bytes]
    log: Path
    keys: Sequence[str] = ()

    def ready(self) -> Served:
        """It, when it takes requests."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := READY.search(self.log.read_text("utf-8", "replace")):
                return Served(found[1], self.process.pid, self.keys)
            time.sleep(0.01)
        said = self.log.read_text("utf-8", "replace")
        raise RuntimeError(f"a server did not get ready: {said[-2000:]}")


@contextmanager
def ours(folder: Path, store: str, requests: int = 0) -> Generator[Starting]:
    """`bilt-mcp serve` for the scratch project and a store below `folder`, with its own limits.

    There are so many keys that nobody is refused when all take turns to ask `requests` times within a minute.
    """
    count = 4 + requests // (RATE - 10)
    keys = [f"bilt_live_{secrets.token_urlsafe(32)}" for _ in range(count)]
    anyio.run(_keep, folder / store, keys)
    program, *places = server_argv(folder, store)
    words = (
        "serve",
        "--port",
        "0",
        "--chat-rate",
        "1000000",
    )  # one person opens all streams at once
    with _started([program, *places, *words], folder, keys) as starting:
        yield starting


@contextmanager
def bare(folder: Path, *words: str) -> Generator[Starting]:
    """A bare server; `words` say which (see bare_http.py)."""
    argv = [sys.executable, "-P", str(HERE / "bare_http.py"), *words]
    with _started(argv, folder) as starting:
        yield starting


async def _keep(store: Path, keys: Sequence[str]) -> None:
    async with SqliteAccess(StoreLocation.of(store)) as access:
        for key in keys:
            digest = hashlib.sha256(key.encode()).digest()
            name, shown = f"bench {key[10:18]}", key[:14]
            await access.create_key(name, Account(ACCOUNT), digest, shown, read_only=False)


@contextmanager
def _started(argv: Sequence[str], folder: Path, keys: Sequence[str] = ()) -> Generator[Starting]:
    log = folder / f"http-{secrets.token_hex(4)}.log"
    given = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=folder,
            env=given,
            process_group=0,  # Ctrl-C in a terminal is for us
        )
    try:
        yield Starting(process, log, keys)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
