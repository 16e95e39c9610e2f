"""Runs a driver against the installed server, in a project and with a store of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bilt_mcp.bench.product import leave

from .check import WORKFLOW

PATIENCE_SECONDS = 180

QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OTEL_SDK_DISABLED": "true",
    "PYTHONWARNINGS": "ignore",
}
"""A client of which nobody asked it tells nobody that it ran."""


class DriverFailed(Exception):
    """A driver ended without having seen everything; the text is the line that says why."""


@contextmanager
def place() -> Generator[Path]:
    """A folder with a project, a home and room for a store; left when nothing of it is alive any more."""
    folder = Path(tempfile.mkdtemp(prefix="bilt-client-"))
    try:
        for name in ("project", "home"):
            (folder / name).mkdir()
        (folder / "project" / "bilt.toml").write_text(WORKFLOW, "utf-8")
        yield folder
    finally:
        leave(folder, patience=0)
        shutil.rmtree(folder, ignore_errors=True)


def server(folder: Path) -> list[str]:
    """The command that a client is configured with."""
    command = Path(sysconfig.get_path("scripts"), "bilt-mcp")
    return [
        *(str(command), "--project", str(folder / "project")),
        *("--store", str(folder / "store")),
    ]


@contextmanager
def http_server(folder: Path) -> Generator[list[str]]:
    """Where a server listens, and a key for it; it is gone afterwards."""
    command, *where = server(folder)
    making = [command, "keys", "create", "client", "--store", str(folder / "store")]
    key = subprocess.run(
        making, env=_environ(folder), check=True, capture_output=True, text=True
    ).stdout
    log = folder / "server.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [command, "serve", "--port", "0", *where],
            env=_environ(folder),
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (ready := re.search(r"ready on (\S+)", log.read_text("utf-8"))):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DriverFailed(f"no server: {log.read_text('utf-8')[-300:]}")
            time.sleep(0.05)
        yield [f"{ready[1]}/mcp", key.strip()]
    finally:
        process.terminate()
        process.wait()


def _environ(folder: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BILT_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {**kept, **QUIET, "HOME": str(folder / "home")}


def run(argv: Sequence[str], folder: Path, where: Sequence[str] = ()) -> dict[str, Any]:
    """What a driver saw; `argv` is the driver, the server's command is added, or `where` one is.

    Raises `DriverFailed`.
    """
    try:
        done = subprocess.run(
            [*argv, "--", *(where or server(folder))],
            cwd=folder / "home",
            env=_environ(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DriverFailed(f"not within {PATIENCE_SECONDS} s") from error
    for line in reversed(done.stdout.splitlines()):  # a client may have said something, too
        if line.startswith('{"'):
            seen: dict[str, Any] = json.loads(line)
            return seen
    said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    # Node's last line is its version.
    raise DriverFailed(next((line for line in reversed(said) if "Error" in line), said[-1])[:300])
