"""Servers over HTTP for tests: in this process on a free port, or a real process; and keys for them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from bilt_mcp.server import Config
from bilt_mcp.server.http.listening import Listening, listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.state import AccessStore, Account, SqliteAccess, StoreLocation

from .rpc import PATIENCE, command


@asynccontextmanager
async def serving(
    config: Config, settings: HttpSettings | None = None
) -> AsyncGenerator[Listening]:
    """The whole server, in this process, on a free loopback port: `.url` and `.site`."""
    async with listening(config, replace(settings or HttpSettings(), port=0)) as server:
        yield server


async def new_key(
    access: AccessStore,
    name: str = "ci",
    account: str = "local",
    *,
    project: str | None = None,
    read_only: bool = False,
) -> str:
    """A key that is good from now on."""
    key = f"bilt_live_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).digest()
    of = Account(account, project)
    await access.create_key(name, of, digest, key[:18], read_only=read_only)
    return key


async def key_in(config: Config, name: str = "ci", account: str = "local") -> str:
    """A key made before any server runs, as `bilt-mcp keys create` does."""
    async with SqliteAccess(StoreLocation.of(config.store)) as access:
        return await new_key(access, name, account)


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@dataclass
class Served:
    """A `bilt-mcp serve` in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Tell it to go."""
        os.kill(self.process.pid, number)

    def exit_code(self, patience: float = PATIENCE) -> int:
        """How it ended, when it has."""
        return self.process.wait(patience)


@contextlib.contextmanager
def serve_process(arguments: Sequence[str], environ: Mapping[str, str]) -> Generator[Served]:
    """`bilt-mcp serve --port 0` with further arguments; gone when the context is left."""
    process = subprocess.Popen(
        command("serve", "--port", "0", *arguments),
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Served(process, _ready(process))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def refused_start(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str]:
    """The exit code and what was said by a `bilt-mcp serve` that does not start."""
    done = subprocess.run(
        command("serve", *arguments),
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr


def _ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and (line := process.stderr.readline()):
        said.append(line)
        if found := re.search(r"ready on (\S+)", line):
            return found[1]
    raise AssertionError(f"the server did not get ready: {''.join(said)}")
