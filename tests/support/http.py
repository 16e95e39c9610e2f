"""Servers over HTTP for tests: in this process on a free port, or a real process; and keys for them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

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


async def key_in(
    config: Config, name: str = "ci", account: str = "local", *, revoked: bool = False
) -> str:
    """A key made before any server runs, as `bilt-mcp keys create` does."""
    async with SqliteAccess(StoreLocation.of(config.store)) as access:
        key = await new_key(access, name, account)
        if revoked:
            await access.revoke_key(name)
        return key


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@dataclass
class Served:
    """A `bilt-mcp serve` in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    said: Path

    def stderr(self) -> str:
        """What it has said so far."""
        return self.said.read_text("utf-8", "replace")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Tell it to go."""
        os.kill(self.process.pid, number)

    def exit_code(self, patience: float = PATIENCE) -> int:
        """How it ended, when it has."""
        return self.process.wait(patience)


@contextlib.contextmanager
def serve_process(arguments: Sequence[str], environ: Mapping[str, str]) -> Generator[Served]:
    """`bilt-mcp serve --port 0` with further arguments; gone when the context is left."""
    with tempfile.TemporaryDirectory(prefix="bilt-serve-") as folder:
        said = Path(folder, "stderr")
        with open(said, "wb") as errors:
            process = subprocess.Popen(
                command("serve", "--port", "0", *arguments),
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        try:
            yield Served(process, _ready(process, said), said)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


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


def _ready(process: subprocess.Popen[bytes], said: Path) -> str:
    deadline = time.monotonic() + 2 * PATIENCE  # it computes more than one on standard streams
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"ready on (\S+)", said.read_text("utf-8", "replace")):
            return found[1]
        time.sleep(0.01)
    raise AssertionError(f"the server did not get ready: {said.read_text('utf-8', 'replace')}")
